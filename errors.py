"""The errors that a user can mend: each message is one line, which a script prints.

Also how such a line names a few of many, or what a person may have meant.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence


class UserError(Exception):
    """What a user can mend. Its message is one line: what is wrong, and what mends it."""


class CheckpointError(UserError):
    """A checkpoint is wrong, or not there."""


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
    """Some of the rows that were asked for cannot be given; the message is the first one's.

    `errors` is what is wrong with each, by its position in the indices asked for.
    """

    def __init__(self, errors: Mapping[int, DataError]) -> None:
        super().__init__(str(errors[min(errors)]))
        self.errors = errors


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
    """What went wrong, in one line: a tf.errors.OpError has nodes and hints in further ones."""
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]


# Which names a person may have meant who wrote one that there is not.

_MAX_NAMES = 3
_MAX_COMPARED = 20_000  # Letter by letter, which is slow; no usual graph has more.
_OUTPUT = re.compile(r":[0-9]*$")


def nearest_names(text: str, names: Iterable[str], most: int = _MAX_NAMES) -> list[str]:
    """At most so many of `names` that are near to `text`, which is none of them; likeliest first.

    Those that differ in no more than case, the number of an output, or scopes in front
    (`import/x`, `x`); where there is none, those that look alike.
    """
    by_plain: dict[str, list[str]] = {}
    for name in names:
        by_plain.setdefault(_plain(name), []).append(name)
    plain = _plain(text)
    if not plain:
        return []
    alike = [key for key in (plain, *_scoped(plain, by_plain)) if key in by_plain]
    if not alike:
        some = itertools.islice(by_plain, _MAX_COMPARED)
        alike = difflib.get_close_matches(plain, some, most, cutoff=0.5)
    found = (name for key in alike for name in by_plain[key])
    return [name for name, _ in zip(found, range(most), strict=False)]


def _plain(name: str) -> str:
    return _OUTPUT.sub("", name.strip()).lower()


def _scoped(plain: str, names: Iterable[str]) -> Iterator[str]:
    """Those that are `plain` with further scopes in front, or without some of its own.

    The fewer scopes they differ in, the earlier they are.
    """
    inner = [name for name in names if name.endswith(f"/{plain}")]
    outer = [name for name in names if name and plain.endswith(f"/{name}")]
    distances = {name: abs(name.count("/") - plain.count("/")) for name in (*inner, *outer)}
    yield from sorted(distances, key=lambda name: distances[name])
