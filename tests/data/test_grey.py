"""Grey values, against Pillow's."""

import numpy as np
from PIL import Image

from data.grey import to_grey


def test_every_value_is_pillows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), np.uint8)
    images[0, 0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    found = to_grey(images)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected[..., np.newaxis])


def test_grey_stays_as_it_is() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_grey(np.repeat(values, 3, axis=2)), values)
