"""The four files of MNIST: their names, their checks, and the rows they become."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.named import labels_beside, open_mnist
from tests.data.conftest import DataErrorLine
from tests.data.idx_files import digits, idx_bytes, write_mnist

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty digits to train on, twenty to test on."""
    return write_mnist(tmp_path / "MNIST_data", 30, 20)


def test_rows_are_scaled_pixels_and_one_hot_labels(folder: Path) -> None:
    opened = open_mnist(str(folder))
    assert (len(opened.train), len(opened.test)) == (30, 20)
    for source, (images, labels) in ((opened.train, digits(30, 0)), (opened.test, digits(20, 1))):
        x, y = source.rows(np.array([7, 0, 7]))
        assert x.dtype == y.dtype == np.float32
        assert y.shape == (3, 10)
        np.testing.assert_array_equal(x, images[[7, 0, 7]].reshape(3, 784) * np.float32(1 / 255))
        np.testing.assert_array_equal(y, np.eye(10)[labels[[7, 0, 7]]])


def test_a_trailing_slash_and_other_usual_names(folder: Path) -> None:
    digest = open_mnist(str(folder)).train.digest()
    for name in FILES:
        (folder / name).rename(folder / name.replace("-idx", ".idx"))
    assert open_mnist(f"{folder}/").train.digest() == digest


def test_gzipped_or_not_is_told_by_the_content(folder: Path) -> None:
    digest = open_mnist(str(folder)).train.digest()
    packed = folder / FILES[0]
    packed.write_bytes(gzip.decompress(packed.read_bytes()))
    assert open_mnist(str(folder)).train.digest() == digest


def test_the_digest_tells_other_images_and_other_labels(folder: Path) -> None:
    images, labels = digits(30, 0)
    digests = {open_mnist(str(folder)).train.digest()}
    images[3, 4, 5] += 1
    (folder / FILES[0]).write_bytes(idx_bytes(images))
    digests.add(open_mnist(str(folder)).train.digest())
    labels[3] += 1
    (folder / FILES[1]).write_bytes(idx_bytes(labels))
    digests.add(open_mnist(str(folder)).train.digest())
    assert len(digests) == 3


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, data_error_line: DataErrorLine, name: str) -> None:
    (folder / name).unlink()
    plain = name.removesuffix(".gz")
    with data_error_line(rf"--data_dir=.*: holds no {plain}; put .* \({plain}.gz\)"):
        open_mnist(str(folder))


def test_a_missing_folder_says_what_to_put_where(
    tmp_path: Path, data_error_line: DataErrorLine
) -> None:
    with data_error_line("--data_dir=.*nowhere: holds no train-images-idx3-ubyte; put"):
        open_mnist(str(tmp_path / "nowhere"))


def test_a_folder_in_place_of_a_file_is_passed_over(
    folder: Path, data_error_line: DataErrorLine
) -> None:
    (folder / FILES[2]).unlink()
    (folder / FILES[2]).mkdir()
    with data_error_line(f"holds no {FILES[2]}"):
        open_mnist(str(folder))


IMAGES, LABELS = digits(20, 1)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (FILES[2], LABELS, r"expected uint8 \[N, 28, 28\], found uint8 \[20\]"),
        (FILES[2], IMAGES[:, :27], r"expected uint8 \[N, 28, 28\], found uint8 \[20, 27, 28\]"),
        (FILES[2], IMAGES.astype(np.float32), r"found float32 \[20, 28, 28\]"),
        (FILES[2], IMAGES[:0], "t10k-images-idx3-ubyte: holds no row"),
        (FILES[3], IMAGES, r"expected uint8 \[N\], found uint8 \[20, 28, 28\]"),
        (FILES[3], LABELS[:0], "t10k-labels-idx1-ubyte: holds no row"),
        (FILES[3], LABELS[:19], r"holds 20 images, but .*t10k-labels-idx1-ubyte 19 labels"),
        (FILES[3], LABELS + 1, r"row 9 \(the first such\) is 10; expected labels from 0 to 9"),
        (FILES[2], digits(30, 0)[0], "holds 30 images, but .* 20 labels"),
    ],
)
def test_files_that_do_not_go_together(
    folder: Path,
    data_error_line: DataErrorLine,
    name: str,
    values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    message: str,
) -> None:
    (folder / name).write_bytes(idx_bytes(values))
    with data_error_line(message):
        open_mnist(str(folder))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_half_downloaded_file_is_named(
    folder: Path, data_error_line: DataErrorLine, name: str, share: float
) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with data_error_line(f"{name}: (is no IDX file|is cut short|cannot be unpacked)"):
        open_mnist(str(folder))


def test_the_labels_beside_images(folder: Path) -> None:
    assert labels_beside(f"{folder}/t10k-images-idx3-ubyte") == f"{folder}/t10k-labels-idx1-ubyte"
    train = f"{folder}/train-labels-idx1-ubyte.gz"
    assert labels_beside(f"{folder}/train-images.idx3-ubyte") == train
    for name in ("images-idx3-ubyte", "t10k-images-idx1-ubyte", "t10k-labels-idx1-ubyte", ""):
        assert labels_beside(f"{folder}/{name}") is None


def test_the_real_files(real_data: Path, tmp_path: Path) -> None:
    """Their counts and first labels are well known: 5 0 4 1 9 and 7 2 1 0 4."""
    shutil.copytree(real_data / "MNIST_data", tmp_path / "copy")
    opened = open_mnist(str(tmp_path / "copy"))
    assert (len(opened.train), len(opened.test)) == (60_000, 10_000)
    for source, first in ((opened.train, [5, 0, 4, 1, 9]), (opened.test, [7, 2, 1, 0, 4])):
        x, y = source.rows(np.arange(5))
        assert y.argmax(axis=1).tolist() == first
        assert x.shape == (5, 784)
        assert (x.min(), x.max()) == (0, 1)
