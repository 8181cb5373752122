"""Data sets: read from files, or made at run time."""
