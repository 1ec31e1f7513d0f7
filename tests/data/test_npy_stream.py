"""Rows out of files, compared with the arrays that NumPy wrote."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.arrays import StreamedArray, open_npy, open_npz
from errors import DataError

X = np.random.default_rng(0).integers(0, 256, (100, 7, 3), np.uint8)
RANGES = [(0, 10), (10, 20), (90, 100), (5, 6), (0, 100), (50, 50)]


def _saved(folder: Path, kind: str, values: Any) -> StreamedArray | None:
    path = f"{folder}/a.{kind[:3]}"
    if kind == "npy":
        np.save(path, values)
        return open_npy(path, 10**6, 1)
    save = np.savez_compressed if kind == "npz, compressed" else np.savez
    save(path, X=values, Y=np.arange(3))
    return open_npz(path, "X", 10**6, 1)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz, compressed"])
def test_rows_in_any_order(tmp_path: Path, kind: str) -> None:
    array = _saved(tmp_path, kind, X)
    assert array is not None
    assert (array.shape, array.dtype, len(array)) == (X.shape, X.dtype, len(X))
    for start, stop in RANGES:
        np.testing.assert_array_equal(array.rows(start, stop), X[start:stop])
    array.close()


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("values", [np.asfortranarray(X[:, :, 0]), np.float32(3)])
def test_what_has_no_rows_one_after_the_other(tmp_path: Path, kind: str, values: Any) -> None:
    assert _saved(tmp_path, kind, values) is None


def test_small_ones_and_missing_ones_are_not_for_a_stream(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X)
    path = f"{tmp_path}/a.npz"
    assert open_npz(path, "X", 10**6, X.nbytes + 1) is None
    assert open_npz(path, "Z", 10**6, 1) is None
    (tmp_path / "no.npz").write_bytes(b"no zip")
    assert open_npz(f"{tmp_path}/no.npz", "X", 10**6, 1) is None


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_the_limit_and_objects(tmp_path: Path, kind: str) -> None:
    path = f"{tmp_path}/a.{kind}"
    np.save(path, X) if kind == "npy" else np.savez(path, X=X)
    with pytest.raises(DataError, match="claims 2,100 bytes; at most 2,099 are unpacked"):
        _open(path, 2099)
    objects = np.array([None, 1])
    np.save(path, objects) if kind == "npy" else np.savez(path, X=objects)
    with pytest.raises(DataError, match="array of objects, which are never unpickled"):
        _open(path, 10**6)


def _open(path: str, max_bytes: int) -> StreamedArray | None:
    if path.endswith(".npy"):
        return open_npy(path, max_bytes, 1)
    return open_npz(path, "X", max_bytes, 1)


def test_damage_is_told_where_it_is_read(tmp_path: Path) -> None:
    large = np.tile(X, (100, 1, 1))
    np.savez(tmp_path / "a.npz", X=large)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    array = open_npz(f"{tmp_path}/a.npz", "X", 10**6, 1)
    assert array is not None
    np.testing.assert_array_equal(array.rows(0, 10), X[:10])
    with pytest.raises(DataError, match="cannot be unpacked, is it damaged"):
        array.rows(10, len(large))
