"""The networks of the tasks, one per file."""
