"""The errors of this package."""

from collections.abc import Mapping


class DataError(ValueError):
    """The data cannot be used; the message is one line for the user."""


class RefusedError(DataError):
    """The file system refuses a file that may be good: no permission, or a disk that fails."""


class UnreachableError(DataError):
    """The folder of a file cannot be reached, which tells nothing of the file."""


class BadRowsError(DataError):
    """Some of the rows that were asked for cannot be given; the message is the first one's.

    Attributes:
      errors: what is wrong with each, by its position in the indices asked for.
    """

    def __init__(self, errors: Mapping[int, DataError]) -> None:
        super().__init__(str(errors[min(errors)]))
        self.errors = errors
