"""A language model's grades."""
