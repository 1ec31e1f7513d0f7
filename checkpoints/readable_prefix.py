"""Checkpoints whose path has characters that TensorFlow's readers take for a pattern.

They look for `<prefix>.index` as for a pattern, and then open the files by their very names: no
way of escaping suits both. It is the path that is changed, by links in a folder of their own.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from checkpoints.errors import CheckpointError, reason

_OF_A_PATTERN = re.compile(r"[*?\[\\]")


@contextmanager
def readable_prefix(prefix: str) -> Iterator[str]:
    """A prefix by which TensorFlow reads the checkpoint at `prefix`, as long as the context lasts.

    Yields:
      `prefix` itself wherever that will do.

    Raises:
      CheckpointError: it is not on a local disk, or no link can be made.
    """
    if not _OF_A_PATTERN.search(prefix):
        yield prefix
        return
    if "://" in prefix:
        raise CheckpointError(
            f"{prefix} cannot be read: TensorFlow takes *, ?, [ and \\ in a path for a pattern; "
            "name it without them"
        )
    try:
        folder = tempfile.TemporaryDirectory(prefix="checkpoint-")
    except OSError as error:
        raise _no_links(prefix, error) from error
    with folder as place:
        plain = os.path.join(place, "model")
        try:
            _link(prefix, plain)
        except OSError as error:
            raise _no_links(prefix, error) from error
        yield plain


def _link(prefix: str, plain: str) -> None:
    """Links each file of one prefix under the other."""
    folder, base = os.path.split(os.path.abspath(prefix))
    for name in os.listdir(folder):
        suffix = name.removeprefix(base)
        if name.startswith(base) and suffix[:1] in ("", ".", "-"):
            os.symlink(os.path.join(folder, name), plain + suffix)


def _no_links(prefix: str, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{prefix} cannot be read: TensorFlow takes *, ?, [ and \\ in a path for a pattern, and "
        f"links to its files cannot be made: {reason(error)}"
    )
