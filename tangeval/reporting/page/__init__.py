"""The page of a results folder: one HTML file."""
