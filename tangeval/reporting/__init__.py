"""What does a reader see? Tables, figures, the page, a notebook's results."""
