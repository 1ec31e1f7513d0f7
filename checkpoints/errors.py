"""The error of a checkpoint that cannot be read, written or used."""


class CheckpointError(Exception):
    """One line: which checkpoint, what is wrong with it, and what mends it."""
