import functools
import gc
import gzip
import hashlib
import importlib
import io
import os
import struct
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlretrieve

import numpy as np
import pytest

from data.image_data import ImageData, ReadOptions, open_image_data
from data.images import resize_grey
from data.named import NAMED, load_named
from tests.data.conftest import DataErrorLine

GENERATOR = np.random.default_rng(0)
GREY = {n: GENERATOR.integers(0, 256, (n, 28, 28), np.uint8) for n in (6, 3)}
LABELS = {6: np.array([9, 0, 3, 3, 9, 8], np.uint8), 3: np.array([3, 9, 1], np.uint8)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty Keras cache, on a machine without a network."""
    from keras.src.backend import config
    from keras.src.utils import file_utils

    def offline(*_: Any) -> None:
        raise URLError("[Errno -3] Temporary failure\nin name resolution")

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
        images = struct.pack(">IIII", 2051, count, 28, 28) + GREY[count].tobytes()
        labels = struct.pack(">II", 2049, count) + LABELS[count].tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def open_named(name: str, *classes: str, fraction: float = 0.0) -> ImageData:
    options = ReadOptions(classes=classes)
    return open_image_data(
        name, ramp_path="", validation_fraction=fraction, seed=0, options=options
    )


def test_what_is_in_the_cache_is_read(fashion: Path) -> None:
    del fashion
    train, test = load_named("fashion_mnist")
    for split, count in ((train, 6), (test, 3)):
        assert np.array_equal(split.images, GREY[count])
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == LABELS[count].tolist()


def test_grey_digits_become_colour_images_of_32_pixels(
    fashion: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del fashion
    with caplog.at_level("INFO", "absl"):
        data = open_named("fashion_mnist", fraction=0.5)
    assert data.test is not None
    assert data.num_classes == len(data.class_names) == 10
    assert data.class_names[9] == data.train.class_names[9] == "Ankle boot"
    x, y = data.train.rows(np.arange(6))
    assert np.array_equal(x, resize_grey(GREY[6]) * np.float32(1 / 255))
    assert y.tolist() == LABELS[6].tolist()
    assert caplog.messages == [
        "--validation_fraction is not used: the test split of fashion_mnist is there to test on"
    ]


def test_classes_are_picked_in_both_splits(fashion: Path) -> None:
    del fashion
    data = open_named("fashion_mnist", "Ankle boot", "Dress")
    assert data.test is not None
    assert (data.class_names, data.num_classes) == (("Ankle boot", "Dress"), 2)
    for source, count, rows, labels in (
        (data.train, 6, [0, 2, 3, 4], [0, 1, 1, 0]),
        (data.test, 3, [0, 1], [1, 0]),
    ):
        x, y = source.rows(np.arange(len(source)))
        assert np.array_equal(x, resize_grey(GREY[count][rows]) * np.float32(1 / 255))
        assert y.tolist() == labels


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "put .*/mnist.npz there as {home}/datasets/mnist.npz"),
        ("fashion_mnist", "{home}/datasets/fashion-mnist/train-images-idx3-ubyte.gz, "),
        ("cifar10", "cifar-10-python.tar.gz there as .*/cifar-10-batches-py-target_archive"),
    ],
)
def test_without_a_network_it_says_what_to_put_where(
    name: str,
    place: str,
    cache: Path,
    data_error_line: DataErrorLine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = place.format(home=cache.parent)
    with data_error_line(f"^--data={name}: URL fetch failure .*; without a network, .*{place}"):
        open_named(name)
    assert capsys.readouterr().out == ""


def test_a_file_cut_short_in_the_cache_is_named(
    fashion: Path, data_error_line: DataErrorLine
) -> None:
    path = fashion / "train-images-idx3-ubyte.gz"
    os.truncate(path, path.stat().st_size // 2)
    with data_error_line(rf"--data=fashion_mnist: .*end-of-stream.*; remove {path}, .*anew"):
        load_named("fashion_mnist")


class Server(NamedTuple):
    """Where data sets are downloaded from in a test.

    Attributes:
      contents: of its files, by name; what it has not is 404.
      asked_for: the names, one for each request.
    """

    contents: dict[str, bytes]
    asked_for: list[str]


CUT_SHORT = b"cut short: "  # Before a content of which half is sent.


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine in place of those that Keras downloads from."""
    from keras.src.utils import file_utils

    del cache  # Patched before: what is undone last must be its own.
    served = Server({}, [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            served.asked_for.append(name)
            content = served.contents.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = content.startswith(CUT_SHORT)
            self.wfile.write(content[: len(content) // 2] if half else content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        here = f"http://127.0.0.1:{listening.server_port}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(
            file_utils, "urlretrieve", lambda url, *rest: urlretrieve(here + url, *rest)
        )
        yield served
        listening.shutdown()
        thread.join(300)
    with warnings.catch_warnings():  # Of what a failed download leaves open, as urllib does.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of a small MNIST, whose checksum Keras takes for that of the real one."""
    content = io.BytesIO()
    np.savez(content, x_train=GREY[6], y_train=LABELS[6], x_test=GREY[3], y_test=LABELS[3])
    names = importlib.import_module("keras.datasets.mnist").load_data.__globals__
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    monkeypatch.setitem(names, "get_file", functools.partial(_get_file, names["get_file"], digest))
    return content.getvalue()


def _get_file(real: Callable[..., str], digest: str, **arguments: str) -> str:
    assert len(arguments["file_hash"]) == len(digest)
    return real(**{**arguments, "file_hash": digest})


def test_what_is_downloaded_stays_in_the_cache(
    cache: Path, server: Server, mnist: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server.contents["mnist.npz"] = mnist
    for _ in range(2):
        train, test = load_named("mnist")
        assert np.array_equal(train.images, GREY[6])
        assert test.labels.tolist() == LABELS[3].tolist()
    assert server.asked_for == ["mnist.npz"]
    assert (cache / "mnist.npz").read_bytes() == mnist
    assert capsys.readouterr().out == ""


def test_a_download_with_another_checksum_is_refused_and_done_anew(
    server: Server, mnist: bytes, data_error_line: DataErrorLine
) -> None:
    server.contents["mnist.npz"] = mnist[:-1] + b"?"
    for _ in range(2):
        with data_error_line("--data=mnist: Incomplete or corrupted file detected"):
            load_named("mnist")
    server.contents["mnist.npz"] = mnist
    assert len(load_named("mnist")[0].labels) == 6
    assert len(server.asked_for) == 3


@pytest.mark.parametrize("content", [None, CUT_SHORT + bytes(1000)])
def test_a_download_that_ends_early_leaves_nothing_behind(
    cache: Path, server: Server, data_error_line: DataErrorLine, content: bytes | None
) -> None:
    if content is not None:
        server.contents["mnist.npz"] = content
    with data_error_line("--data=mnist: URL fetch failure .*; without a network, put "):
        load_named("mnist")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_without_a_checksum_is_to_be_removed(
    cache: Path, server: Server, data_error_line: DataErrorLine
) -> None:
    for file in NAMED["fashion_mnist"].files:
        server.contents[os.path.basename(file)] = gzip.compress(bytes(1000))[:-9]
    with data_error_line(r"--data=fashion_mnist: .*; remove .*, .*downloaded anew, or, without"):
        load_named("fashion_mnist")
    assert len(list((cache / "fashion-mnist").iterdir())) == 4


def _cifar10_archive() -> bytes:
    """No image at all in CIFAR-10's form, which no checksum fits."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"))
    return content.getvalue()


def test_an_archive_with_another_checksum_is_refused(
    cache: Path, data_error_line: DataErrorLine
) -> None:
    cache.mkdir()
    (cache / NAMED["cifar10"].files[0]).write_bytes(_cifar10_archive())
    with data_error_line("--data=cifar10: URL fetch failure"):
        load_named("cifar10")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes `keras.datasets` give these arrays for both splits of a data set."""

    def set_arrays(name: str, images: Any, labels: Any) -> None:
        module = importlib.import_module(f"keras.datasets.{name}")
        monkeypatch.setattr(module, "load_data", lambda: ((images, labels), (images, labels)))

    return set_arrays


def test_four_classes_of_cifar10(loads: Callable[..., None]) -> None:
    pixels = GENERATOR.integers(0, 256, (20, 3, 32, 32), np.uint8)
    images = pixels.transpose(0, 2, 3, 1)  # As Keras gives them: in another order in memory.
    loads("cifar10", images, (np.arange(20) % 10).astype(np.uint8)[:, np.newaxis])
    data = open_named("cifar10", "ship", "airplane", "cat", "truck")
    assert (data.class_names, data.num_classes) == (("ship", "airplane", "cat", "truck"), 4)
    x, y = data.train.rows(np.arange(8))
    rows = [0, 3, 8, 9, 10, 13, 18, 19]
    assert np.array_equal(x, images[rows] * np.float32(1 / 255))
    assert y.tolist() == [1, 2, 0, 3] * 2


def test_mnist_has_its_digits_as_names(loads: Callable[..., None]) -> None:
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
def test_other_arrays_are_refused(
    images: Any,
    labels: Any,
    message: str,
    loads: Callable[..., None],
    data_error_line: DataErrorLine,
) -> None:
    loads("mnist", images, labels)
    with data_error_line(f"--data=mnist: .*{message}"):
        load_named("mnist")
