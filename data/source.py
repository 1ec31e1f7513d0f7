"""Where examples come from: sources that give rows by their numbers.

The features may be kept in an array or in a store: on disk, or read from there into memory.
"""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

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


class RowSpec(NamedTuple):
    """What one array of `Source.rows` holds for each example."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Store(Protocol):
    """The features of N examples, outside of memory; several threads may call `take` at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As they are kept: uint8 or float32."""

    @property
    def workers(self) -> int:
        """How many threads that call `take` get the most examples a second."""

    def take(self, indices: Indices) -> Array:
        """The features of these examples, [B, ...], new.

        Raises:
          BadRowsError: some cannot be read, or are no numbers.
        """

    def digest(self) -> str:
        """Tells these features from others: a SHA-256 in hex, in a time that has a bound."""


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """Examples with their labels in memory, and their features there or in a store.

    Attributes:
      features: uint8 or float32 [N, ...]; uint8 comes out as float32, times `scale`.
      labels: [N, ...], in the dtype that the model takes; not to be changed.
      class_names: in the order of the labels; () where there are none.
      scale: what uint8 is multiplied by.
    """

    features: Array | Store
    labels: Array
    class_names: tuple[str, ...] = ()
    scale: np.float32 = UINT8_SCALE

    def __post_init__(self) -> None:
        if self.features.shape[0] != len(self.labels):
            raise ValueError(f"{self.features.shape[0]} features and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def specs(self) -> tuple[RowSpec, ...]:
        """Of each array that `rows` gives."""
        kept = self.features.dtype
        given = np.dtype(np.float32) if kept == np.uint8 else kept
        return (
            RowSpec(self.features.shape[1:], given),
            RowSpec(self.labels.shape[1:], self.labels.dtype),
        )

    @property
    def workers(self) -> int:
        """How many threads that call `rows` get the most examples a second.

        For an array it is one, as copying memory gains nothing from more.
        """
        return 1 if isinstance(self.features, np.ndarray) else self.features.workers

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """The examples of these numbers, as new arrays; several threads may ask at once.

        Args:
          indices: int64 [B], each in [0, len).

        Returns:
          One array per input of the model, each [B, ...]. Of images: x float32 [B, 32, 32, 3],
          y int64 [B].

        Raises:
          BadRowsError: some of them cannot be read, or are no numbers.
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
            return _digest_of([self.features, self.labels])
        return SAMPLED + _digest_of([self.labels], before=self.features.digest().encode())


def _digest_of(arrays: Iterable[Array], before: bytes = b"") -> str:
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
        self.specs: tuple[RowSpec, ...] = source.specs
        self.class_names: tuple[str, ...] = source.class_names
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
    """What another store has, in memory.

    Attributes:
      values: its features, [N, ...]; those of bad rows are zeros.
      shape: of `values`.
      dtype: of `values`.
      workers: see `Store.workers`.
    """

    def __init__(self, values: Array, errors: Mapping[int, DataError], origin: Store) -> None:
        """Takes the features, what is wrong with bad rows, by number, and the other store."""
        self.values = values
        self.shape, self.dtype, self.workers = values.shape, values.dtype, 1
        self._errors = errors
        self._origin = origin

    def take(self, indices: Indices) -> Array:
        """See `Store.take`."""
        if self._errors:
            numbers = enumerate(indices.tolist())
            bad = {place: self._errors[row] for place, row in numbers if row in self._errors}
            if bad:
                raise BadRowsError(bad)
        return self.values.take(indices, axis=0)

    def digest(self) -> str:
        """See `Store.digest`."""
        return self._origin.digest()


def hold(store: Store, *, keep_bad: bool) -> HeldStore:
    """Reads a store into memory.

    Args:
      store: what is read.
      keep_bad: bad rows are raised when they are asked for, not at once.

    Raises:
      BadRowsError: the first bad row, unless keep_bad.
    """
    values = np.zeros(store.shape, store.dtype)
    errors: dict[int, DataError] = {}

    def read_some(first: int) -> None:
        rows = np.arange(first, min(first + _ROWS_PER_TASK, len(values)))
        try:
            values[rows] = store.take(rows)
        except BadRowsError as bad:
            if not keep_bad:
                raise
            errors.update({int(rows[position]): bad.errors[position] for position in bad.errors})
            good = np.delete(rows, list(bad.errors))
            values[good] = store.take(good)

    executor = ThreadPoolExecutor(store.workers, thread_name_prefix="hold")
    try:
        for _ in executor.map(read_some, range(0, len(values), _ROWS_PER_TASK)):
            pass  # In order, so that the error is of the first bad row.
    finally:
        executor.shutdown(cancel_futures=True)
    return HeldStore(values, errors, store)
