"""A model's file as data: read, checked, restored, and only then run."""
