"""The errors that a user can mend: each message is one line, which a script prints.

Also how such a line names a few of many, or what a person may have meant.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence


class UserError(Exception):
    """What a user can mend. Its message is one line: what is wrong, and what mends it."""


class CheckpointError(UserError):
    """A checkpoint is wrong, or not there."""


class DamagedError(CheckpointError):
    """Files of a checkpoint are damaged, or some are missing; another one may be good."""


class NotInstalledError(CheckpointError):
    """Only TensorFlow can tell, and it is not installed."""


class NotFiniteError(CheckpointError):
    """A variable is NaN or infinite: nothing that is worth a checkpoint."""


class FolderLostError(CheckpointError):
    """The folder is no longer ours to write into: it was moved, or its lock was removed."""


class LaterVersionError(CheckpointError):
    """A later version made it: it is not damaged, and nothing may take its place."""


class DataError(UserError, ValueError):
    """The data cannot be used."""


class RefusedError(DataError):
    """The file system refuses a file that may be good, or its folder is away."""


class BadRowsError(DataError):
    """Some of the rows that were asked for cannot be given; the message is the first one's."""

    def __init__(self, errors: Mapping[int, DataError]) -> None:
        super().__init__(str(errors[min(errors)]))
        self.errors = errors  # By position in the indices that were asked for.


class PredictionError(UserError):
    """What was asked cannot be predicted."""


class TrainingError(UserError):
    """A training run cannot start or go on."""


class ToolError(UserError):
    """A command cannot be done."""


def first_few(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first texts of a list that may be long, and how many more there are."""
    more = len(texts) - most
    return separator.join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def reason(error: Exception) -> str:
    """What went wrong, in one line: a tf.errors.OpError has nodes and hints in further ones.

    An OSError says it as TensorFlow does: the file, then what the system says of it.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}; {error.strerror}" if error.filename else error.strerror
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]


# Which names a person may have meant who wrote one that there is not.

_MAX_COMPARED = 20_000  # Letter by letter, which is slow; no usual graph has more.
_OUTPUT = re.compile(r":[0-9]*$")


def nearest_names(text: str, names: Iterable[str], most: int = 3) -> list[str]:
    """At most so many of `names` that are near to `text`, which is none of them; likeliest first.

    Those that differ in no more than case, the number of an output, or scopes in front
    (`import/x`, `x`), fewest first; where there is none, those that look alike.
    """
    by_plain: dict[str, list[str]] = {}
    for name in names:
        by_plain.setdefault(_plain(name), []).append(name)
    plain = _plain(text)
    if not plain:
        return []
    whole, depth = f"/{plain}", plain.count("/")
    alike = [k for k in by_plain if f"/{k}".endswith(whole) or (k and whole.endswith(f"/{k}"))]
    alike.sort(key=lambda key: (abs(key.count("/") - depth), -key.count("/")))
    if not alike:
        some = itertools.islice(by_plain, _MAX_COMPARED)
        alike = difflib.get_close_matches(plain, some, most, cutoff=0.5)
    return [name for key in alike for name in by_plain[key]][:most]


def _plain(name: str) -> str:
    return _OUTPUT.sub("", name.strip()).lower()
