"""The points that the linear regression is fitted to."""

import numpy as np
import numpy.typing as npt

from data.random_bits import Stream, raw_bits

NUM_POINTS = 100
SLOPE = 0.1
INTERCEPT = 0.2


def points(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points of y = 0.1 x + 0.2.

    Args:
      seed: the run's seed, 0 or more.

    Returns:
      x float32 [100], uniform in [0, 1), and y float32 [100].
    """
    # The top 24 bits: as many as a float32 in [0, 1) holds without rounding up to 1.
    bits = raw_bits(NUM_POINTS, seed, Stream.POINTS) >> np.uint64(40)
    x = bits.astype(np.float32) * np.float32(2**-24)
    return x, np.float32(SLOPE) * x + np.float32(INTERCEPT)
