"""What does a person type? Parse, call ``api``, print."""
