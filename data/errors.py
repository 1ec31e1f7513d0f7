"""The error of this package."""


class DataError(ValueError):
    """The data cannot be used; the message is one line for the user."""
