"""Which names a person may have meant who wrote one that there is not."""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator

_MAX_NAMES = 3
_MAX_COMPARED = 20_000  # Letter by letter, which is slow; no usual graph has more.
_OUTPUT = re.compile(r":[0-9]*$")


def nearest_names(text: str, names: Iterable[str], most: int = _MAX_NAMES) -> list[str]:
    """The nearest of `names`, the likeliest first.

    Those that differ in no more than case, the number of an output, or scopes in front
    (`import/x`, `x`); where there is none, those that look alike.

    Args:
      text: what was written.
      names: what there is; none is `text`.
      most: how many are wanted.
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
