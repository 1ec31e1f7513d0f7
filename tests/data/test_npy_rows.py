"""Rows of an .npy file, compared with the array that NumPy wrote."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.arrays import NpyStore, open_npy
from errors import BadRowsError
from tests.data.conftest import error_line

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)
ORDERS = [[], [7], [0, 1, 2, 3], [3, 2, 1], [49, 0, 1, 1, 30, 31, 32], list(range(50))]


def saved(folder: Path, array: Any) -> str:
    np.save(folder / "x.npy", array)
    return str(folder / "x.npy")


def store(folder: Path, array: Any = PIXELS) -> NpyStore:
    """Of images of 4 pixels in a column."""
    return NpyStore(saved(folder, array), (4, 3))


@pytest.fixture(params=[True, False], ids=["by position", "in turn"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as on a system without positioned reads, or from a remote path."""
    if not request.param:
        monkeypatch.delattr(os, "preadv")


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", ["u1", "<f2", "<f4", ">f4", "<f8"])
def test_rows_are_those_of_the_array_and_floats_become_float32(dtype: str, tmp_path: Path) -> None:
    array = PIXELS if dtype == "u1" else (PIXELS / 255).astype(dtype)
    rows = store(tmp_path, array)
    given = np.dtype(np.uint8 if dtype == "u1" else np.float32)
    assert (rows.shape, rows.dtype) == ((50, 4, 3), given)
    for order in ORDERS:
        taken = rows.take(np.array(order, np.int64))
        assert taken.dtype == given
        assert np.array_equal(taken, array[order].astype(given))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_the_file_is_closed_with_the_object(tmp_path: Path) -> None:
    rows = store(tmp_path)

    def is_open() -> bool:
        targets = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
        return os.path.realpath(tmp_path / "x.npy") in targets

    assert is_open()
    assert sys.getrefcount(rows) == 2
    del rows
    assert not is_open()


def test_no_more_than_the_rows_is_in_memory(tmp_path: Path) -> None:
    """Forty gigabytes, of which the disk holds a few pages."""
    rows, row_bytes = 10**7, 4096
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (rows, row_bytes)}
    np.lib.format.write_array_header_1_0(header, described)
    with open(tmp_path / "x.npy", "wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + rows * row_bytes)
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")
    taken = NpyStore(str(tmp_path / "x.npy"), (row_bytes,)).take(np.array([0, rows - 1]))
    assert taken[:, -1].tolist() == [0, 7]


def test_rows_that_are_gone_or_no_numbers_are_named(tmp_path: Path) -> None:
    rows, path = store(tmp_path), tmp_path / "x.npy"
    os.truncate(path, path.stat().st_size - 12 * 10 - 1)  # The last ten rows and a byte.
    assert np.array_equal(rows.take(np.arange(39)), PIXELS[:39])
    with pytest.raises(BadRowsError, match=r"x\.npy: row 40 is not there any more; .*short") as bad:
        rows.take(np.array([5, 40, 38, 39, 49]))
    assert sorted(bad.value.errors) == [1, 3, 4]
    array = (PIXELS / 255).astype(np.float64)
    array[7, 0, 0], array[30, 1, 1], array[31, 2, 2] = np.nan, np.inf, 1e300
    rows = store(tmp_path, array)
    assert rows.take(np.array([6, 8])).shape == (2, 4, 3)
    with pytest.raises(BadRowsError, match=r"x\.npy: row 30 holds NaN or infinity") as bad:
        rows.take(np.array([1, 30, 2, 7, 31]))
    assert sorted(bad.value.errors) == [1, 3, 4]


def test_rows_in_fortrans_order_are_refused(tmp_path: Path) -> None:
    with error_line(r"x\.npy: is in Fortran's order, .*; save np\.ascontiguousarray"):
        store(tmp_path, np.asfortranarray(PIXELS))


def test_arrays_of_any_dtype_by_rows(tmp_path: Path) -> None:
    array = np.arange(600, dtype=">i8").reshape(50, 4, 3)
    path = saved(tmp_path, array)
    rows = open_npy(path, 10**6, 1)
    assert rows is not None
    assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, 50)
    for start, stop in [(0, 10), (40, 50), (5, 6), (0, 50), (20, 20)]:
        np.testing.assert_array_equal(rows.rows(start, stop), array[start:stop])
    os.truncate(path, 1000)
    with error_line("row 40 is not there any more"):
        rows.rows(40, 50)


def test_what_is_not_read_by_rows(tmp_path: Path) -> None:
    for values in (np.asfortranarray(PIXELS), np.float32(3)):
        assert open_npy(saved(tmp_path, values), 10**6, 1) is None
    path = saved(tmp_path, PIXELS)
    assert open_npy(path, 10**6, PIXELS.nbytes + 1) is None
    with error_line("claims 600 bytes; at most 599 are unpacked"):
        open_npy(path, 599, 1)
    with error_line("array of objects, which are never unpickled"):
        open_npy(saved(tmp_path, np.array([None, 1])), 10**6, 1)
