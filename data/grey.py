"""Colour images to grey ones."""

import numpy as np
import numpy.typing as npt

# The weights of ITU-R BT.601 in 16 bits, as Pillow's conversion to its mode "L" has them.
_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)
_ONE, _HALF = 1 << 16, 1 << 15


def to_grey(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The brightness of each pixel; of one whose channels are alike it is their value.

    Args:
      images: uint8 [..., 3], RGB.

    Returns:
      uint8 [..., 1].
    """
    sums = images.astype(np.uint32) @ _WEIGHTS[:, np.newaxis] + np.uint32(_HALF)
    return (sums // np.uint32(_ONE)).astype(np.uint8)
