"""Where examples come from: sources that give rows by their numbers.

The features may be kept in an array or in a store: on disk, or read from there into memory.
"""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from errors import BadRowsError, DataError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
# A graph that was trained on uint8 images records this factor, so that others scale as we do.
UINT8_SCALE = np.float32(1 / 255)
SAMPLED = "sampled:"  # Before a digest that takes samples: it compares with no other.
# A future costs tens of microseconds, about as much as a small image.
_ROWS_PER_TASK = 64


class Store(Protocol):
    """The features of N examples, outside of memory; several threads may call `take` at once."""

    shape: tuple[int, ...]  # [N, ...].
    dtype: np.dtype[Any]  # As they are kept, uint8 or float32.
    workers: int  # How many threads that call `take` get the most examples a second.

    def take(self, indices: Indices) -> Array:
        """The features of these examples, [B, ...], new; BadRowsError where some cannot be had."""

    def digest(self) -> str:
        """Tells these features from others: a SHA-256 in hex, in a time that has a bound."""


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """Examples with their labels in memory, and their features there or in a store."""

    features: Array | Store  # uint8 or float32 [N, ...]; uint8 comes out as float32, times `scale`.
    labels: Array  # [N, ...], in the dtype that the model takes; not to be changed.
    scale: np.float32 = UINT8_SCALE

    def __post_init__(self) -> None:
        if self.features.shape[0] != len(self.labels):
            raise ValueError(f"{self.features.shape[0]} features and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one example's features."""
        return self.features.shape[1:]

    @property
    def workers(self) -> int:
        """As of the store; one for an array, as copying memory gains nothing from more."""
        return 1 if isinstance(self.features, np.ndarray) else self.features.workers

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """The examples of these numbers, int64 [B], as new arrays; several threads may ask at once.

        Gives one array per input of the model, each [B, ...]; of images, x float32 [B, 32, 32, 3]
        and y int64 [B]. Raises BadRowsError where some cannot be read, or are no numbers.
        """
        if isinstance(self.features, np.ndarray):
            features: Array = self.features.take(indices, axis=0)
        else:
            features = self.features.take(indices)
        if features.dtype == np.uint8:
            features = features * self.scale
        return features, self.labels.take(indices, axis=0)

    def digest(self) -> str:
        """Tells these examples, in this order, from others: a SHA-256 in hex.

        Of a store it takes samples (see `data/files.py`), and `SAMPLED` stands before it. It is the
        same wherever the store is, and whether it is held in memory or not.
        """
        if isinstance(self.features, np.ndarray):
            return _digest_of(b"", self.features, self.labels)
        return SAMPLED + _digest_of(self.features.digest().encode(), self.labels)


def _digest_of(before: bytes, *arrays: Array) -> str:
    """A SHA-256 in hex of some bytes, then of arrays: their dtypes, shapes and values."""
    digest = hashlib.sha256(before)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Subset:
    """Some examples of another source, without a copy of them, in its place."""

    def __init__(self, source: "Source", members: Indices) -> None:
        """Takes their numbers in the source, int64 [M]; example i is then members[i]."""
        self.source = source
        self.members = members
        self.row_shape: tuple[int, ...] = source.row_shape
        self.workers: int = source.workers
        self.labels: Array = source.labels.take(members, axis=0)

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """See `LabelledSource.rows`."""
        return self.source.rows(self.members.take(indices))

    def digest(self) -> str:
        """See `LabelledSource.digest`."""
        whole = self.source.digest()
        digest = hashlib.sha256(whole.encode() + self.members.tobytes()).hexdigest()
        return SAMPLED + digest if whole.startswith(SAMPLED) else digest


Source: TypeAlias = LabelledSource | Subset


class HeldStore:
    """Another store, with as many of its rows in memory as may be: those asked for first."""

    def __init__(self, store: Store, most: int) -> None:
        """Takes how many rows may be in memory; none is read yet."""
        self.shape, self.dtype, self.workers = store.shape, store.dtype, store.workers
        self._store = store
        self.values: Array = np.zeros((most, *store.shape[1:]), store.dtype)
        self._places = np.full(store.shape[0], -1)  # Of each row in what is held; -1 for none.
        self._count = 0
        self._lock = threading.Lock()
        self._errors: dict[int, DataError] = {}  # Of rows that were found bad by `fill`.

    def fill(self, *, keep_bad: bool) -> dict[int, DataError]:
        """Asks for all rows, in parallel; gives the bad ones, or raises BadRowsError for them."""

        def ask(first: int) -> None:
            rows = np.arange(first, min(first + _ROWS_PER_TASK, self.shape[0]))
            try:
                self.take(rows)
            except BadRowsError as bad:
                if not keep_bad:
                    raise
                self._errors.update({int(rows[place]): e for place, e in bad.errors.items()})
                self.take(np.delete(rows, list(bad.errors)))

        with ThreadPoolExecutor(self.workers, thread_name_prefix="hold") as executor:
            for _ in executor.map(ask, range(0, self.shape[0], _ROWS_PER_TASK)):
                pass  # In order, so that the error is of the first bad row.
        self.workers = self.workers if len(self.values) < self.shape[0] else 1
        return self._errors

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        places = self._places.take(indices)
        new = np.flatnonzero(places < 0)
        if not len(new):
            return self.values.take(places, axis=0)
        if self._errors:
            told = {place: self._errors.get(int(indices[place])) for place in new.tolist()}
            if bad := {place: error for place, error in told.items() if error}:
                raise BadRowsError(bad)
        try:
            read = self._store.take(indices.take(new))
        except BadRowsError as bad:
            errors = {int(new[place]): error for place, error in bad.errors.items()}
            raise BadRowsError(errors) from bad
        self._hold(indices.take(new), read)
        if len(new) == len(indices):
            return read
        values = np.empty((len(indices), *self.shape[1:]), self.dtype)
        values[new], values[places >= 0] = read, self.values[places[places >= 0]]
        return values

    def _hold(self, indices: Indices, values: Array) -> None:
        """Keeps what there is room for, and no other thread has kept meanwhile."""
        with self._lock:
            room = len(self.values) - self._count
            # A batch that reaches into the next epoch may have a row twice.
            _, firsts = np.unique(indices, return_index=True)
            rows = firsts[self._places.take(indices.take(firsts)) < 0][:room]
            places = np.arange(self._count, self._count + len(rows))
            self.values[places] = values[rows]
            self._places[indices[rows]] = places  # Last: other threads read without the lock.
            self._count += len(rows)

    def digest(self) -> str:
        """See `Store.digest`."""
        return self._store.digest()
