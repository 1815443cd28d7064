"""The metrics that any task may use, a file each; a task lists those that it takes."""
