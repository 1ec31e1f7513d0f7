"""Data sets by name: Keras's cache, MNIST's four files, the ramp, and the drawn shapes."""

import gzip
import hashlib
import importlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import pytest

from data import named
from data.image_data import ImageData, ReadOptions, open_image_data
from data.images import fit_images
from data.named import (
    NAMED,
    RAMP_FILE,
    check_ramp,
    find_file,
    labels_beside,
    load_named,
    open_mnist,
    ramp_demo,
    ramp_images,
    write_ramp,
)
from tests.conftest import Capture, Log, Patch
from tests.data.conftest import error_line
from tests.data.idx_files import digits, idx_bytes, write_mnist

GENERATOR = np.random.default_rng(0)
GREY = {n: GENERATOR.integers(0, 256, (n, 28, 28), np.uint8) for n in (6, 3)}
LABELS = {6: np.array([9, 0, 3, 3, 9, 8], np.uint8), 3: np.array([3, 9, 1], np.uint8)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The folder of an empty Keras cache, on a machine without a network."""
    from keras.src.backend import config
    from keras.src.utils import file_utils

    offline = Mock(side_effect=URLError("[Errno -3] Temporary failure\nin name resolution"))
    # KERAS_HOME is read when Keras is imported, which another test may have done.
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    return tmp_path / "datasets"


@pytest.fixture
def fashion(cache: Path) -> Path:
    """The four files of a small Fashion-MNIST, by its format."""
    folder = cache / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 6), ("t10k", 3)):
        for name, values in (("images-idx3", GREY[count]), ("labels-idx1", LABELS[count])):
            content = gzip.compress(idx_bytes(values))
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(content)
    return folder


def open_named(name: str, *classes: str, fraction: float = 0.0) -> ImageData:
    given: Any = {"ramp_path": "", "validation_fraction": fraction, "seed": 0}
    return open_image_data(name, **given, options=ReadOptions(classes=classes))


@pytest.mark.usefixtures("fashion")
@pytest.mark.parametrize(
    ("classes", "rows", "labels"),
    [
        ((), ([*range(6)], [*range(3)]), ([9, 0, 3, 3, 9, 8], [3, 9, 1])),
        (("Ankle boot", "Dress"), ([0, 2, 3, 4], [0, 1]), ([0, 1, 1, 0], [1, 0])),
    ],
)
def test_grey_images_become_colour_images(
    classes: Any, rows: Any, labels: Any, caplog: Log
) -> None:
    with caplog.at_level("INFO", "absl"):
        data = open_named("fashion_mnist", *classes, fraction=0.5)
    assert data.num_classes == len(data.class_names) == (len(classes) or 10)
    assert data.class_names[-1] == ("Dress" if classes else "Ankle boot")
    for source, count, kept, numbers in zip(data[:2], (6, 3), rows, labels, strict=True):
        assert source is not None
        x, y = source.rows(np.arange(len(source)))
        assert np.array_equal(x, fit_images(GREY[count][kept], 32, 3) * np.float32(1 / 255))
        np.testing.assert_array_equal(y, np.array(numbers), strict=True)
    line = "--validation_fraction is not used: the test split of fashion_mnist is there to test on"
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "put .*/mnist.npz there as {home}/datasets/mnist.npz"),
        ("fashion_mnist", r"put .*/.train,t10k.-.*gz there as {home}/datasets/fashion-mnist/"),
        ("cifar10", "cifar-10-python.tar.gz there as .*/cifar-10-batches-py-target_archive"),
    ],
)
def test_without_a_network(name: str, place: str, cache: Path, capsys: Capture) -> None:
    place = place.format(home=cache.parent)
    with error_line(f"^--data={name}: URL fetch failure .*; without a network, .*{place}"):
        open_named(name)
    assert capsys.readouterr().out == ""


def test_what_is_damaged_in_the_cache_is_named(fashion: Path) -> None:
    path = fashion / "train-images-idx3-ubyte.gz"
    os.truncate(path, path.stat().st_size // 2)
    with error_line("--data=fashion_mnist: .*end-of-stream.*; .*damaged, remove it"):
        load_named("fashion_mnist")
    # No image at all in CIFAR-10's form, which no checksum fits.
    with tarfile.open(fashion.parent / NAMED["cifar10"].place, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"))
    with error_line("--data=cifar10: URL fetch failure"):
        load_named("cifar10")


@pytest.fixture
def loads(monkeypatch: Patch) -> Callable[..., None]:
    """Makes `keras.datasets` give these arrays for both splits of a data set."""

    def set_arrays(name: str, images: Any, labels: Any) -> None:
        module = importlib.import_module(f"keras.datasets.{name}")
        monkeypatch.setattr(module, "load_data", lambda: ((images, labels), (images, labels)))

    return set_arrays


def test_four_classes_of_cifar10_and_two_of_mnist(loads: Callable[..., None]) -> None:
    pixels = GENERATOR.integers(0, 256, (20, 3, 32, 32), np.uint8)
    images = pixels.transpose(0, 2, 3, 1)  # As Keras gives them: in another order in memory.
    loads("cifar10", images, (np.arange(20) % 10).astype(np.uint8)[:, np.newaxis])
    data = open_named("cifar10", "ship", "airplane", "cat", "truck")
    assert (data.class_names, data.num_classes) == (("ship", "airplane", "cat", "truck"), 4)
    x, y = data.train.rows(np.arange(8))
    assert np.array_equal(x, images[[0, 3, 8, 9, 10, 13, 18, 19]] * np.float32(1 / 255))
    assert y.tolist() == [1, 2, 0, 3] * 2
    loads("mnist", GREY[6], LABELS[6])
    assert open_named("mnist").class_names == tuple("0123456789")
    assert open_named("mnist", "9", "3").train.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GREY[6][:, 1:], LABELS[6], r"expected images uint8 .* found uint8 \[6, 27, 28\] and 6"),
        (GREY[6].astype(float), LABELS[6], "found float64"),
        (GREY[6], LABELS[6][:5], "and N labels, found .* and 5"),
        (GREY[6], LABELS[6] + 1, "expected labels from 0 to 9"),
        (GREY[6][:0], LABELS[6][:0], "expected labels from 0 to 9"),
    ],
)
def test_other_arrays(images: Any, labels: Any, message: str, loads: Callable[..., None]) -> None:
    loads("mnist", images, labels)
    with error_line(f"--data=mnist: .*{message}"):
        load_named("mnist")


TRAIN_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
FILES = (*TRAIN_FILES, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty digits to train on, twenty to test on."""
    return write_mnist(tmp_path / "MNIST_data", 30, 20)


def test_rows_are_scaled_pixels_and_one_hot_labels(folder: Path) -> None:
    train, test = open_mnist(str(folder))
    assert (len(train), len(test)) == (30, 20)
    for source, (images, labels) in ((train, digits(30, 0)), (test, digits(20, 1))):
        x, y = source.rows(np.array([7, 0, 7]))
        pixels, one_hot = images[[7, 0, 7]].reshape(3, 784), np.eye(10, dtype=np.float32)
        np.testing.assert_array_equal(x, pixels * np.float32(1 / 255), strict=True)
        np.testing.assert_array_equal(y, one_hot[labels[[7, 0, 7]]], strict=True)


def test_the_digest_is_that_of_the_values_whatever_the_names(folder: Path) -> None:
    digest = open_mnist(str(folder))[0].digest()
    packed = folder / FILES[0]
    packed.write_bytes(gzip.decompress(packed.read_bytes()))
    for name in FILES:
        (folder / name).rename(folder / name.replace("-idx", ".idx"))
    assert open_mnist(f"{folder}/")[0].digest() == digest
    images, labels = digits(30, 0)
    images[3, 4, 5] += 1
    for name, values in ((FILES[0], images), (FILES[1], labels + (labels < 9))):
        (folder / name.replace("-idx", ".idx")).write_bytes(idx_bytes(values))
        assert digest != (digest := open_mnist(str(folder))[0].digest())


@pytest.mark.parametrize(
    "place",
    ["{}/{}", "{}/{dotted}", "{dotted}/{}", "MNIST/raw/{}", "raw/{}", "{}.gz/{}", "{}/{}.gz"],
)
def test_each_file_may_be_in_a_folder_of_its_name(folder: Path, tmp_path: Path, place: str) -> None:
    """As 7-Zip, Windows and Kaggle leave them, and where torchvision puts them."""
    for name in FILES:
        plain, content = name.removesuffix(".gz"), (folder / name).read_bytes()
        path = (
            tmp_path
            / "new"
            / place.replace("{}", plain).replace("{dotted}", plain.replace("-idx", ".idx"))
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found, expected = open_mnist(f"{tmp_path}/new"), open_mnist(str(folder))
    assert [part.digest() for part in found] == [part.digest() for part in expected]
    images = find_file(f"{tmp_path}/new", "t10k-images", 3)
    assert images is not None
    assert labels_beside(images) == find_file(f"{tmp_path}/new", "t10k-labels", 1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [None, 0.0, 0.9])
def test_a_file_that_is_missing_or_cut_short(folder: Path, name: str, share: float | None) -> None:
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if share is None:
        (folder / name).mkdir()  # A folder in place of a file is passed over.
        plain = name.removesuffix(".gz")
        message = rf"--data_dir=.*: holds no {plain}; put .* \({plain}.gz\)"
    else:
        (folder / name).write_bytes(content[: int(share * len(content))])
        message = f"{name}: (is no IDX file|is cut short|cannot be unpacked)"
    with error_line(message):
        open_mnist(str(folder))


IMAGES, DIGITS = digits(20, 1)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (FILES[2], DIGITS, r"expected uint8 \[N, 28, 28\], found uint8 \[20\]"),
        (FILES[2], IMAGES[:, :27], r"expected uint8 \[N, 28, 28\], found uint8 \[20, 27, 28\]"),
        (FILES[2], IMAGES.astype(np.float32), r"found float32 \[20, 28, 28\]"),
        (FILES[2], IMAGES[:0], r"expected uint8 \[N, 28, 28\], found uint8 \[0, 28, 28\]"),
        (FILES[3], IMAGES, r"expected uint8 \[N\], found uint8 \[20, 28, 28\]"),
        (FILES[3], DIGITS[:0], r"expected uint8 \[N\], found uint8 \[0\]"),
        (FILES[3], DIGITS[:19], r"holds 20 images, but .*t10k-labels-idx1-ubyte 19 labels"),
        (FILES[3], DIGITS + 1, "expected labels from 0 to 9, found 10"),
        (FILES[2], digits(30, 0)[0], "holds 30 images, but .* 20 labels"),
    ],
)
def test_files_do_not_fit(folder: Path, name: str, values: npt.NDArray[Any], message: str) -> None:
    (folder / name).write_bytes(idx_bytes(values))
    with error_line(message):
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
    train, test = open_mnist(str(tmp_path / "copy"))
    assert (len(train), len(test)) == (60_000, 10_000)
    for source, first in ((train, [5, 0, 4, 1, 9]), (test, [7, 2, 1, 0, 4])):
        x, y = source.rows(np.arange(5))
        assert y.argmax(axis=1).tolist() == first
        assert (x.shape, x.min(), x.max()) == ((5, 784), 0, 1)


RAMP = np.arange(30720).reshape(10, 32, 32, 3) / 255
RAMP_LABELS = [0, 0, 1, 1, 2, 2, 3, 3, 2, 0]


def test_the_demo_is_two_images_of_the_ramp() -> None:
    images, labels = ramp_demo()
    np.testing.assert_array_equal(images, RAMP[2:4].astype(np.float32), strict=True)
    np.testing.assert_array_equal(labels, np.array([3, 1]), strict=True)


def test_ramp_is_written_where_it_is_absent_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    contents = []
    for folder in ("a", "b"):
        path = tmp_path / folder / RAMP_FILE
        check_ramp(str(path))
        assert not path.parent.exists()  # Before the folder is locked, nothing is written.
        write_ramp(str(path))
        check_ramp(str(path))
        contents.append(path.read_bytes())
        assert [file.name for file in path.parent.iterdir()] == [RAMP_FILE] == ["data10_4.npz"]
    with np.load(io.BytesIO(contents[0])) as saved:
        assert sorted(saved) == ["X", "Y"]
        assert np.array_equal(saved["X"], ramp_images())
        assert saved["Y"].tolist() == RAMP_LABELS
    assert contents[0] == contents[1]
    with error_line("data10_4.npz: Not a directory"):
        write_ramp(f"{path}/{RAMP_FILE}")
    np.savez(path, X=RAMP, Y=np.array(RAMP_LABELS, np.int32))
    before = path.read_bytes()
    check_ramp(str(path))
    write_ramp(str(path))
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    with error_line(r"data10_4\.npz: cannot be unpacked"):
        check_ramp(str(path))


def test_other_values_than_the_ramp_are_refused(tmp_path: Path) -> None:
    others = ((RAMP + 1, RAMP_LABELS), (RAMP, RAMP_LABELS[::-1]), (RAMP[:9], RAMP_LABELS))
    for images, labels in (*others, (RAMP, RAMP_LABELS[:9])):
        np.savez(tmp_path / RAMP_FILE, X=images, Y=labels)
        with error_line(r"data10_4\.npz: holds other values than the ramp; remove it"):
            check_ramp(str(tmp_path / RAMP_FILE))


# The drawings: the same bytes everywhere, each a function of its number, shapes that are told.


def test_the_bytes_are_the_same_on_every_machine() -> None:
    """And a quarter of each split is of each class."""
    for numbers, count, digest in (
        (
            named.TRAIN_SHAPES,
            4000,
            "3931acd0059e959d511afa6cfad4369039b9b7af15cde0a6f64ba5490f580a62",
        ),
        (
            named.TEST_SHAPES,
            800,
            "58031634aa7a9b39a46afca8f1dc845af652c3c1a32bf62824233896d68b2b58",
        ),
    ):
        images, labels = named.shape_examples(numbers)
        assert (images.shape, images.dtype.name) == ((count, 32, 32, 3), "uint8")
        assert (np.bincount(labels).tolist(), labels.dtype.name) == ([count // 4] * 4, "int64")
        assert hashlib.sha256(images.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_an_image_follows_from_seed_and_number_alone(seed: int) -> None:
    numbers = np.arange(300)
    together = named.draw_shapes(numbers, seed)
    backwards = named.draw_shapes(numbers[::-1].copy(), seed)[::-1]
    alone = np.concatenate([named.draw_shapes(numbers[i : i + 1], seed) for i in range(300)])
    assert np.array_equal(together, backwards)
    assert np.array_equal(together, alone)
    assert len({image.tobytes() for image in together}) == 300
    assert not np.array_equal(together, named.draw_shapes(numbers, seed + 1))


def test_what_is_drawn_is_what_its_class_says() -> None:
    """By the share of its bounding box that a shape fills, and how far down its middle lies."""
    images, labels = named.shape_examples(named.TEST_SHAPES)
    shown = images.astype(int).sum(axis=3) > 336  # Half between the dark and the bright.
    filled, middle = np.empty((2, len(shown)))
    for number, mask in enumerate(shown):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        filled[number] = box.mean()
        middle[number] = (np.flatnonzero(box) // box.shape[1]).mean() / (len(box) - 1)
    of_class = [labels == label for label in range(4)]
    circle, square, triangle, cross = ([filled[i], middle[i]] for i in of_class)
    assert np.median(circle, axis=1) == pytest.approx([np.pi / 4, 1 / 2], abs=0.02)
    assert np.median(square, axis=1)[1] == pytest.approx(1 / 2, abs=0.02)
    assert np.percentile(square[0], 95) > 0.9  # Where it is hardly turned, it is its box.
    assert np.median(triangle, axis=1)[0] == pytest.approx(1 / 2, abs=0.03)
    assert 0.58 < np.median(triangle, axis=1)[1] < 2 / 3  # Turned, its corners lie lower.
    assert np.median(cross, axis=1) == pytest.approx([1 - (11 / 16) ** 2, 1 / 2], abs=0.03)
