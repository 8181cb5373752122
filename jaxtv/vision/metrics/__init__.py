"""What the tasks are measured by."""
