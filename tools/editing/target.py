"""The files of a new checkpoint: made aside, moved into place when all is well, or gone.

They are made in a folder of their own beside where they will be, which is locked meanwhile; what a
process that was killed has left there, the next one clears. A checkpoint is read by its `.index`,
which is moved last, and what is replaced loses its own first: whatever is interrupted leaves
nothing that looks whole.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import tensorflow as tf

from checkpoints import durable, naming
from checkpoints.errors import reason
from checkpoints.folder import names_in
from checkpoints.loading.variable_files import prefix_of
from checkpoints.lock import FolderLock
from tools.common.errors import ToolError
from tools.common.folder_entries import EDITED_SUFFIX

_BASE = "model"  # Of the files while they are aside.


class Target:
    """A new checkpoint; a context whose end clears what was not kept."""

    def __init__(self, prefix: str, sources: Iterable[str], overwrite: bool) -> None:
        """Looks whether there may be a checkpoint; nothing is written.

        Args:
          prefix: of the new one.
          sources: the prefixes of those that it is made from.
          overwrite: whether one that is there may be replaced.

        Raises:
          ToolError: it is no prefix, or is there, or is a source.
        """
        self._folder, self._name = os.path.split(prefix)
        self.final = prefix
        _check_prefix(prefix)
        for source in sources:
            if _same(source, prefix):
                raise ToolError(f"--output={prefix} is the source, which is never touched")
        self._old = self._files()
        if self._old and not overwrite:
            raise ToolError(f"--output={prefix}: {self._old[0]} is there; --overwrite replaces it")
        self._aside = os.path.join(self._folder, f".{self._name}{EDITED_SUFFIX}")
        self._lock = FolderLock(self._aside, "take another --output", keeps_file=False)

    @property
    def prefix(self) -> str:
        """Of the files while they are aside."""
        return os.path.join(self._aside, _BASE)

    def __enter__(self) -> "Target":
        """Makes the folder aside.

        Raises:
          CheckpointError: another process is making the same checkpoint.
          ToolError: the file system refused.
        """
        with self._in_one_line():
            tf.io.gfile.makedirs(self._aside)
            try:
                self._lock.__enter__()
            except OSError:  # A full disk may have no place for it.
                if not names_in(self._aside):
                    tf.io.gfile.rmtree(self._aside)
                raise
            for name in self._made():
                durable.remove(os.path.join(self._aside, name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if tf.io.gfile.exists(self._aside):
            tf.io.gfile.rmtree(self._aside)
        self._lock.__exit__()

    def write_graph(self, content: bytes) -> str:
        """Writes the file of the graph, aside, and returns its path.

        Raises:
          ToolError: the file system refused.
        """
        path = self.prefix + naming.META_SUFFIX
        with self._in_one_line():
            durable.write_file(path, content)
        return path

    def commit(self) -> list[str]:
        """Flushes the files, moves them into place and returns their names.

        A state file is written where the folder has none.

        Raises:
          ToolError: the file system refused.
        """
        names = self._made()
        index = _BASE + naming.INDEX_SUFFIX
        ordered = [*(name for name in names if name != index), index]
        with self._in_one_line():
            for name in ordered:
                durable.flush(os.path.join(self._aside, name))
            for name in self._files():
                durable.remove(os.path.join(self._folder, name))
            durable.flush(self._folder or ".")
            moved = [self._name + name.removeprefix(_BASE) for name in ordered]
            for name, new in zip(ordered, moved, strict=True):
                durable.rename(os.path.join(self._aside, name), os.path.join(self._folder, new))
            durable.flush(self._folder or ".")
            return sorted([*moved, *self._state_file()])

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Makes a ToolError of what the file system says."""
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            raise ToolError(f"--output={self.final}: {reason(error)}") from error

    def _made(self) -> list[str]:
        """The files that are aside."""
        return [name for name in names_in(self._aside) if name.startswith(_BASE)]

    def _files(self) -> list[str]:
        """The files of a checkpoint that is there, in the order in which they are to go."""
        if not tf.io.gfile.isdir(self._folder or "."):
            return []
        pending = self._name + naming.MANIFEST_SUFFIX + ".tmp"
        first = [self._name + suffix for suffix in (naming.MANIFEST_SUFFIX, naming.INDEX_SUFFIX)]
        names = names_in(self._folder)
        found = [n for n in names if n == pending or prefix_of(n) == self._name]
        return sorted(found, key=lambda name: first.index(name) if name in first else len(first))

    def _state_file(self) -> Sequence[str]:
        """Writes the file that names the newest checkpoint of a folder, unless there is one."""
        path = os.path.join(self._folder, naming.STATE_FILE)
        if tf.io.gfile.exists(path):
            return ()
        state = tf.compat.v1.train.generate_checkpoint_state_proto("", self._name)
        durable.replace_file(path, str(state).encode())
        return (naming.STATE_FILE,)


def _check_prefix(prefix: str) -> None:
    name = os.path.basename(prefix)
    if name in ("", ".", "..", naming.STATE_FILE) or tf.io.gfile.isdir(prefix):
        raise ToolError(
            f"--output={prefix} is no prefix of a checkpoint: add a name to the folder, as in "
            f"{os.path.join(prefix, 'model')}"
        )
    if prefix_of(prefix) != prefix:
        raise ToolError(f"--output={prefix} is a file's name: expected {prefix_of(prefix)}")


def _same(prefix: str, other: str) -> bool:
    """Whether two prefixes are of the same files, whatever links lead to their folders."""
    if "://" in prefix + other:
        return prefix == other
    places = [os.path.split(os.path.abspath(path)) for path in (prefix, other)]
    return len({os.path.join(os.path.realpath(folder), name) for folder, name in places}) == 1
