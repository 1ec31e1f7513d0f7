"""The error of this package."""


class PredictionError(Exception):
    """What was asked cannot be predicted; the message is one line for the user."""
