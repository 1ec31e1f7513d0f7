import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.images import as_images, as_labels, count_classes, warn_out_of_range
from tests.data.conftest import DataErrorLine

SHAPE = (4, 32, 32, 3)


def test_uint8_images_are_taken_as_they_are() -> None:
    images = np.ones(SHAPE, np.uint8)
    assert as_images(images, "X") is images


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "g"])
def test_float_images_become_float32(dtype: str) -> None:
    values = np.random.default_rng(0).random(SHAPE)
    images = as_images(values.astype(dtype), "X")
    assert images.dtype == np.float32
    assert np.array_equal(images, values.astype(dtype).astype(np.float32))


def test_float32_images_are_not_copied() -> None:
    images = np.ones(SHAPE, np.float32)
    assert as_images(images, "X") is images


def test_rows_lie_together_in_memory() -> None:
    images = as_images(np.asfortranarray(np.ones(SHAPE, np.float32)), "X")
    assert images.flags.c_contiguous


@pytest.mark.parametrize(
    "shape", [(), (4,), (4, 3072), (4, 32, 32), (4, 32, 32, 1), (4, 3, 32, 32), (4, 28, 28, 3)]
)
def test_other_shapes_are_refused(shape: tuple[int, ...], data_error_line: DataErrorLine) -> None:
    found = str(list(shape)).replace("[", r"\[").replace("]", r"\]")
    with data_error_line(rf"X: expected the shape \[N, 32, 32, 3\], found {found}$"):
        as_images(np.zeros(shape, np.uint8), "X")


@pytest.mark.parametrize("dtype", ["i8", "u2", "?", "c8", "U1", "V4", "M8[s]"])
def test_other_dtypes_are_refused(dtype: str, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"X: expected uint8 in 0..255 or float in \[0, 1\], found "):
        as_images(np.zeros(SHAPE, dtype), "X")


def test_no_image_is_refused(data_error_line: DataErrorLine) -> None:
    with data_error_line("X: holds no image"):
        as_images(np.zeros((0, 32, 32, 3), np.float32), "X")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_first_row_that_is_not_finite_is_named(
    value: float, data_error_line: DataErrorLine
) -> None:
    images = np.zeros(SHAPE)
    images[2, 5, 6, 1] = images[3, 0, 0, 0] = value
    with data_error_line(r"X: row 2 \(the first such\) holds NaN or infinity"):
        as_images(images, "X")


@pytest.mark.parametrize(
    ("low", "high", "warning"),
    [
        (0, 1, None),
        (0, 255, "a.npz: X: values in [0, 255]; expected [0, 1], or uint8"),
        (-0.5, 0.5, "a.npz: X: values in [-0.5, 0.5]; expected [0, 1], or uint8"),
    ],
)
def test_values_outside_the_unit_range_are_warned_of(
    low: float, high: float, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.linspace(low, high, 4 * 3072, dtype=np.float32).reshape(SHAPE)
    with caplog.at_level(logging.WARNING, "absl"):
        warn_out_of_range(images, "a.npz: X")
    assert caplog.messages == ([warning] if warning else [])


def test_uint8_images_need_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_out_of_range(np.full(SHAPE, 255, np.uint8), "X")
    assert not caplog.messages


@pytest.mark.parametrize("dtype", ["u1", "i1", ">u2", "i4", "i8", "u8", "f2", "f4", ">f8"])
def test_whole_numbers_are_labels(dtype: str) -> None:
    labels = as_labels(np.array([3, 0, 1], dtype), "Y")
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array([0, 1, -1, -2]), "row 2 .* is -1"),
        (np.array([0, 0.5]), r"row 1 .* is 0\.5"),
        (np.array([np.nan, 0], np.float32), "row 0 .* is nan"),
        (np.array([0, np.inf]), "row 1 .* is inf"),
        (np.array([0, 1e30]), r"row 1 .* is 1e\+30"),
        (np.array([0, 2**63], np.uint64), "row 1 .* is 9223372036854775808"),
    ],
)
def test_other_numbers_are_refused(
    labels: npt.NDArray[Any], found: str, data_error_line: DataErrorLine
) -> None:
    with data_error_line(f"Y: {found}; expected the whole numbers from 0"):
        as_labels(labels, "Y")


@pytest.mark.parametrize("dtype", ["?", "U1", "c8", "V1", "m8[s]"])
def test_other_dtypes_are_no_labels(dtype: str, data_error_line: DataErrorLine) -> None:
    with data_error_line("Y: expected labels as whole numbers, found "):
        as_labels(np.zeros(3, dtype), "Y")


@pytest.mark.parametrize("shape", [(), (3, 1), (3, 4)])
def test_other_ranks_are_no_labels(shape: tuple[int, ...], data_error_line: DataErrorLine) -> None:
    with data_error_line(r"Y: expected one label per image, \[N\], found \["):
        as_labels(np.zeros(shape, np.int64), "Y")


def test_classes_are_counted_by_the_greatest_label() -> None:
    assert count_classes(np.array([2, 0, 1, 1]), "Y") == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 2], r"the class 1 has no image \(the labels go up to 2\)"),
        ([1, 2], "the class 0 has no image"),
        ([0, 1, 2**31 - 1], "the class 2 has no image"),
        ([0, 0, 0], "all labels are 0; expected two classes or more"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    labels: list[int], message: str, data_error_line: DataErrorLine
) -> None:
    with data_error_line(f"Y: {message}"):
        count_classes(np.array(labels), "Y")
