"""The error of a training run that cannot start or go on."""


class TrainingError(Exception):
    """One line: what stopped the run, and what mends it."""
