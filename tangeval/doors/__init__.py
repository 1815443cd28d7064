"""Short ways in, for those who have no study: see docs/doors.md."""
