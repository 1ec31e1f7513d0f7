"""Where examples come from: anything that gives rows by their numbers."""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

# A graph that was trained on uint8 images records this factor, so that others scale as we do.
UINT8_SCALE = np.float32(1 / 255)


class Source(Protocol):
    """Examples numbered from 0; `rows` may be called by several threads at once."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """The examples of these numbers, as new arrays of the caller's own.

        Args:
          indices: int64 [B], each in [0, len).

        Returns:
          One array per input of the model, each [B, ...]. Of images: x float32 [B, 32, 32, 3],
          y int64 [B].
        """
        ...

    def digest(self) -> str:
        """Tells these examples, in this order, from any others: a SHA-256 in hex."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Examples in memory.

    Attributes:
      features: uint8 or float32 [N, ...]; uint8 comes out as float32, times `UINT8_SCALE`.
      labels: [N], in the dtype that the model takes.
    """

    features: Array
    labels: Array

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise ValueError(f"{len(self.features)} features and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: Indices) -> tuple[Array, Array]:
        """See `Source.rows`."""
        features = self.features.take(indices, axis=0)
        if features.dtype == np.uint8:
            features = features * UINT8_SCALE
        return features, self.labels.take(indices)

    def digest(self) -> str:
        """See `Source.digest`: of all values, their dtypes and shapes."""
        digest = hashlib.sha256()
        for array in (self.features, self.labels):
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Subset:
    """Some examples of another source, without a copy of them.

    Attributes:
      source: where they are.
      members: int64 [M], their numbers in `source`; example i of the subset is members[i].
    """

    source: Source
    members: Indices

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, indices: Indices) -> tuple[Array, ...]:
        """See `Source.rows`."""
        return self.source.rows(self.members.take(indices))

    def digest(self) -> str:
        """See `Source.digest`."""
        return hashlib.sha256(self.source.digest().encode() + self.members.tobytes()).hexdigest()
