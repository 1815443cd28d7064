"""The checkpoints of a study live in a browser: side by side, taken apart, forced, and tasted blind."""
