"""What do the numbers say? Scores, intervals, tests, selection, comparison."""
