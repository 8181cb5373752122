"""The tasks: each module here is one, under its own name; a new one is one more module."""
