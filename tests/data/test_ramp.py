from pathlib import Path

import numpy as np
import pytest

from data.named import (
    RAMP_FILE,
    demo_images,
    demo_labels,
    open_ramp,
    ramp_images,
    ramp_labels,
    write_ramp,
)
from tests.data.conftest import DataErrorLine

IMAGES = np.arange(30720).reshape(10, 32, 32, 3) / 255
LABELS = [0, 0, 1, 1, 2, 2, 3, 3, 2, 0]


def test_ramp_and_demo_are_as_designed() -> None:
    demo = np.arange(6144, 12288).reshape(2, 32, 32, 3) / 255
    for images, expected in ((ramp_images(), IMAGES), (demo_images(), demo)):
        assert images.dtype == np.float32
        assert np.array_equal(images, expected.astype(np.float32))
    for labels, numbers in ((ramp_labels(), LABELS), (demo_labels(), [3, 1])):
        assert labels.dtype == np.int64
        assert labels.tolist() == numbers


def test_file_is_made_where_it_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "model1" / RAMP_FILE
    source = open_ramp(str(path))
    assert not path.parent.exists()  # Before the folder is locked, nothing is written.
    write_ramp(str(path))
    assert path.name == "data10_4.npz"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with np.load(path) as saved:
        assert sorted(saved) == ["X", "Y"]
        assert np.array_equal(saved["X"], source.features)
        assert saved["Y"].tolist() == LABELS


def test_file_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_ramp(str(tmp_path / name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("dtypes", [("f4", "i8"), ("f8", "i4")])
def test_existing_file_is_used(dtypes: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / RAMP_FILE
    np.savez(path, X=IMAGES.astype(dtypes[0]), Y=np.array(LABELS, dtypes[1]))
    before = path.read_bytes()
    write_ramp(str(path))
    x, y = open_ramp(str(path)).rows(np.arange(10))
    assert np.array_equal(x, IMAGES.astype(np.float32))
    assert y.tolist() == LABELS
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("images", "labels"),
    [(IMAGES + 1, LABELS), (IMAGES, LABELS[::-1]), (IMAGES[:9], LABELS), (IMAGES, LABELS[:9])],
)
def test_other_values_are_refused(
    images: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    labels: list[int],
    tmp_path: Path,
    data_error_line: DataErrorLine,
) -> None:
    path = tmp_path / RAMP_FILE
    np.savez(path, X=images, Y=np.array(labels))
    with data_error_line(r"data10_4\.npz: holds other values than the ramp; remove it"):
        open_ramp(str(path))


def test_damaged_file_is_named(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    path = tmp_path / RAMP_FILE
    write_ramp(str(path))
    path.write_bytes(path.read_bytes()[:1000])
    with data_error_line(r"data10_4\.npz: cannot be unpacked"):
        open_ramp(str(path))


def test_folder_that_cannot_be_made_is_named(
    tmp_path: Path, data_error_line: DataErrorLine
) -> None:
    (tmp_path / "file").touch()
    with data_error_line("data10_4.npz: .*file is not a directory"):
        write_ramp(str(tmp_path / "file" / RAMP_FILE))
