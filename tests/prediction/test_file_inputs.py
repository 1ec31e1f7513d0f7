"""Opening what --input may name: files of each kind, as rows for a tensor, read in batches."""

import gzip
import itertools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.files import UINT8_SCALE, LabelledSource
from errors import DataError, PredictionError
from metagraph.description import Classifier, TensorInfo
from prediction import file_inputs
from prediction.file_inputs import (
    RowInputs,
    Target,
    array_rows,
    open_files,
    open_input,
    read_records,
)
from tests.data.idx_files import idx_bytes
from tests.metagraph.made import refused
from tests.prediction.conftest import CLASS_NAMES, SCALE, SIZE, info, write_npz

IMAGES = Target(
    info(tf.float32, None, SIZE, SIZE, 3),
    float(SCALE),
    CLASS_NAMES,
    Classifier("probabilities:0", "classes:0", len(CLASS_NAMES)),
)
TEXTS = Target(info(tf.string, None), None, (), None)
GREYS = IMAGES._replace(info=info(tf.float32, None, 16), image_shape=(4, 4, 1))
COLUMNS = Target(info(tf.float32, 3, None), None, (), None)
NUMBERS = Target(info(tf.float32, None), None, (), None)


def _all(opened: RowInputs) -> Any:
    return opened.rows["t:0"].take(np.arange(len(opened.names)))


def _read(path: str, target: Target) -> Any:
    """All rows of a file or folder."""
    return _all(open_input(path, target))


def _write_images(folder: Path, images: Any, names: Sequence[str]) -> None:
    for name, pixels in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def test_npz_with_labels(tmp_path: Path, images: Any) -> None:
    labels = np.array([0, 1, 2, 2, 1, 0, 0], np.uint8)
    opened = open_input(write_npz(tmp_path / "a.npz", X=images, Y=labels), IMAGES)
    np.testing.assert_array_equal(_all(opened), images * SCALE)
    np.testing.assert_array_equal(opened.labels, labels)
    assert opened.names == ["0", "1", "2", "3", "4", "5", "6"]
    assert open_input(write_npz(tmp_path / "b.npz", X=images), IMAGES).labels is None
    path = write_npz(tmp_path / "c.npz", X=np.ones(3), Y=np.array([0.5, 1.5, 2.5]))
    assert open_input(path, NUMBERS).labels is None  # They are of no classifier.


def test_npz_as_others_name_its_arrays(tmp_path: Path, images: Any, said: list[str]) -> None:
    """Of two pairs, the one to test on; labels may be a column."""
    labels = np.arange(7)[:, np.newaxis] % 3
    keras = {"x_train": images[::-1], "y_train": labels, "x_test": images, "y_test": labels}
    for arrays in (keras, {"x": images, "y": labels}, {"images": images, "labels": labels}):
        opened = open_input(write_npz(tmp_path / "a.npz", **arrays), IMAGES)
        np.testing.assert_array_equal(_all(opened), images * SCALE)
        np.testing.assert_array_equal(opened.labels, labels[:, 0])
        assert f"a.npz: the rows are {[*arrays][-2]}, and their labels" in said.pop(0)
        said.clear()
    both = write_npz(tmp_path / "a.npz", X=images, x=images[::-1], y=labels)
    np.testing.assert_array_equal(_read(both, IMAGES), images * SCALE)


@pytest.mark.parametrize("stream_bytes", [1, 2**28])
def test_arrays_of_images_are_resized_where_that_is_asked_for(
    tmp_path: Path, stream_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Pillow does it: grey for colours, colours for rows of grey values; of .npz always."""
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", stream_bytes)
    for shape, target, mode in [((28, 28), IMAGES, "RGB"), ((9, 7, 3), GREYS, "L")]:
        values = np.random.default_rng(2).integers(0, 256, (5, *shape), np.uint8)
        np.save(tmp_path / "a.npy", values)
        (tmp_path / "a-idx3-ubyte").write_bytes(idx_bytes(values))
        whole = [Image.fromarray(pixels).convert("RGB") for pixels in values]
        small = [image.resize((4, 4), Image.Resampling.BILINEAR).convert(mode) for image in whole]
        rows = np.stack([*map(np.asarray, small)])
        expected = (rows if mode == "RGB" else rows.reshape(5, 16)) * SCALE
        for name in ("a.npy", "a-idx3-ubyte"):
            with refused(r"found uint8 \[5, .*; --resize makes images fit", PredictionError):
                open_input(f"{tmp_path}/{name}", target)
            found = open_input(f"{tmp_path}/{name}", target._replace(resize=True)).rows["t:0"]
            np.testing.assert_array_equal(found.take(np.array([1, 3, 4])), expected[[1, 3, 4]])
        np.testing.assert_array_equal(
            _read(write_npz(tmp_path / "a.npz", X=values), target), expected
        )
    for other in (np.zeros((5, 9, 9), np.float32), np.zeros((5, 9), np.uint8)):
        with refused(r"\[5, 9.*\]$", PredictionError):
            open_input(write_npz(tmp_path / "b.npz", X=other), IMAGES)


def test_several_files_are_rows(tmp_path: Path, images: Any) -> None:
    _write_images(tmp_path, images[:2], ["b.png", "a.bmp"])
    (tmp_path / "a.txt").write_text("one\n")
    paths = [f"{tmp_path}/b.png", f"{tmp_path}/a.bmp"]
    opened = open_files(paths, IMAGES)
    np.testing.assert_array_equal(_all(opened), images[:2] * SCALE)
    assert opened.names == paths
    assert _all(open_files(paths, TEXTS)).tolist() == [Path(path).read_bytes() for path in paths]
    with refused("c.jpg: No such file", DataError):
        open_files([*paths, f"{tmp_path}/c.jpg"], IMAGES)
    others = [(str(tmp_path), IMAGES), (_npz(X=ZEROS)(tmp_path), IMAGES)]
    for other, target in (*others, (f"{tmp_path}/a.txt", TEXTS)):
        with refused("several of --input for t:0 are images, a row each", PredictionError):
            open_files([*paths, other], target)


@pytest.mark.parametrize(
    ("dtype", "shape", "content", "expected"),
    [
        (tf.float32, (None,), "1\n2.5\n", [1, 2.5]),
        (tf.int64, (None,), "1\n2\n", [1, 2]),
        (tf.bool, (None,), "1\n0\n", [True, False]),
        (tf.float32, (None, 2, 2), "1,2,3,4\n5,6,7,8\n", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
        (tf.float32, None, "1,2\n", [[1, 2]]),
        *(
            (tf.float32, (None, None), content, np.array([[1, 2.5], [-3, 0.04]], np.float32))
            for content in [
                "1, 2.5\r\n-3 ,4e-2",
                "\ufeff1,2.5\n\n-3,0.04\n\n",
                "1,2.5\r-3,0.04\r",
                '"1","2.5"\r\n"-3",0.04',
            ]
        ),
    ],
)
def test_csv_takes_the_shape_of_the_tensor(
    tmp_path: Path, dtype: tf.DType, shape: Any, content: str, expected: Any
) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    target = Target(TensorInfo("t:0", dtype, shape), None, (), None)
    found = _read(f"{tmp_path}/a.csv", target)
    assert found.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(found, expected)


def test_a_folder_of_images_in_the_order_of_their_names(tmp_path: Path, images: Any) -> None:
    _write_images(tmp_path, images[:3], ["b.png", "a.png", "c.png"])
    (tmp_path / ".hidden").write_text("no image")
    opened = open_input(f"{tmp_path}/", IMAGES)
    np.testing.assert_array_equal(_all(opened), images[[1, 0, 2]] * SCALE)
    assert (opened.names, opened.labels) == (["a.png", "b.png", "c.png"], None)


def test_class_folders_are_labelled_by_name(tmp_path: Path, images: Any, said: list[str]) -> None:
    _write_images(tmp_path, images[:3], ["cat/1.png", "bee/1.png", "bee/0.png"])  # No ant here.
    opened = open_input(str(tmp_path), IMAGES)
    np.testing.assert_array_equal(_all(opened), images[[2, 1, 0]] * SCALE)
    assert opened.names == ["bee/0.png", "bee/1.png", "cat/1.png"]
    np.testing.assert_array_equal(opened.labels, [1, 1, 2])
    assert open_input(str(tmp_path), IMAGES._replace(class_names=())).labels is None
    assert "no class names" in said[0]
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="ant"):
        open_input(str(tmp_path), IMAGES)


def test_arrays_and_files_of_images_that_are_rows(tmp_path: Path, images: Any) -> None:
    """Grey ones in any form are the same rows; colours are taken for their brightness."""
    (tmp_path / "greys").mkdir()
    greys = images[..., 0]
    _write_images(tmp_path / "greys", greys, [f"{row}.png" for row in range(7)])
    np.save(tmp_path / "a.npy", greys)
    (tmp_path / "a.IDX").write_bytes(idx_bytes(greys))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(greys)))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(np.full(7, 2, np.uint8)))
    images_of_mnist = f"{tmp_path}/train-images-idx3-ubyte.gz"
    for path in (
        write_npz(tmp_path / "flat.npz", X=greys.reshape(7, -1)),
        write_npz(tmp_path / "channel.npz", X=greys[..., np.newaxis]),
        write_npz(tmp_path / "floats.npz", X=greys * SCALE),
        f"{tmp_path}/greys",
        f"{tmp_path}/a.npy",
        f"{tmp_path}/a.IDX",
        images_of_mnist,
    ):
        np.testing.assert_array_equal(_read(path, GREYS), greys.reshape(7, -1) * SCALE)
        labels = open_input(path, GREYS).labels  # Those of MNIST have theirs beside them.
        np.testing.assert_array_equal(labels, [2] * 7 if path == images_of_mnist else None)
    _write_images(tmp_path / "colours", images, [f"{row}.png" for row in range(7)])
    brightness = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    expected = np.stack(brightness).reshape(7, -1) * SCALE
    np.testing.assert_array_equal(_read(f"{tmp_path}/colours", GREYS), expected)


def test_a_scale_that_may_be_wrong_is_told(tmp_path: Path, images: Any, said: list[str]) -> None:
    """Of files for a graph that has none, and of floats outside of [0, 1] for one that has."""
    _write_images(tmp_path, images[:1], ["a.png"])
    found = _read(f"{tmp_path}/a.png", IMAGES._replace(scale=None))
    np.testing.assert_array_equal(found, images[:1])
    path = write_npz(tmp_path / "a.npz", X=images.astype(np.float32))
    np.testing.assert_array_equal(_read(path, IMAGES), images)
    open_input(write_npz(tmp_path / "b.npz", X=images / np.float32(255)), IMAGES)
    of_files, of_floats = said
    assert "0 to 255" in of_files
    assert f"[{images.min()}, {images.max()}]" in of_floats


def _npz(**arrays: Any) -> Callable[[Path], str]:
    return lambda folder: write_npz(folder / "a.npz", **arrays)


def _file(content: str, name: str = "a.csv") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content.encode(errors="surrogateescape"))
        return f"{folder}/{name}"

    return write


def _folder(*names: str) -> Callable[[Path], str]:
    """A folder of images of these names, or an empty one."""

    def write(folder: Path) -> str:
        pixels = np.zeros((len(names), SIZE, SIZE, 3), np.uint8)
        _write_images(folder, pixels, names)
        return str(folder)

    return write


def _idx(labels: Any) -> Callable[[Path], str]:
    """Two grey images as of MNIST, and labels beside them."""

    def write(folder: Path) -> str:
        (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((2, 4, 4), np.uint8)))
        (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels.astype(np.uint8)))
        return f"{folder}/t10k-images-idx3-ubyte"

    return write


ZEROS = np.zeros((2, SIZE, SIZE, 3), np.float32)


@pytest.mark.parametrize(
    ("make", "target", "message"),
    [
        (_npz(images=ZEROS), IMAGES, "expected an array X .*, found images; .*--feed"),
        (_npz(X=ZEROS[0]), IMAGES, r"a.npz: X: t:0 takes float32 \[\?, 4, 4, 3\], found .*\[4, 4,"),
        (_npz(X=ZEROS[:, :3]), IMAGES, r"found float32 \[2, 3, 4, 3\]"),
        (_npz(X=ZEROS[:0]), IMAGES, "has no rows"),
        (_npz(X=ZEROS, Y=np.zeros(3, int)), IMAGES, "Y: expected 2 labels, one a row, found 3"),
        (_npz(X=np.ones(3), Y=np.ones((2, 5))), NUMBERS, "expected 3 labels, one a row, found 2"),
        (_npz(X=np.ones(3), Y=np.float32(1)), NUMBERS, "one a row, found a single value"),
        (_npz(X=ZEROS, Y=np.array([0, 3])), IMAGES, "expected labels from 0 to 2, found 3"),
        (_npz(X=ZEROS * np.nan), IMAGES, "row 0 .* holds NaN or infinity"),
        (_npz(X=np.array(["a", "b"])), NUMBERS, "takes float32, found <U1"),
        (_npz(X=np.array([True])), NUMBERS, "takes float32, found bool"),
        (_npz(X=np.float32(3)), NUMBERS, r"found float32 \[\]"),
        (_file("1,2\n"), NUMBERS, r"takes rows of shape \[\], found 2 numbers a row"),
        (_file("1,2\n\n3\n"), NUMBERS, r"a\.csv, line 3: expected 2 numbers, found 1"),
        (_file("1,2\n3,x\n"), NUMBERS, "line 2, column 2: 'x' is no number"),
        (_file("a,b\n1,2\n"), NUMBERS, "line 1, column 1: 'a' is no number .*no header"),
        (_file("1,2\n3,\n"), NUMBERS, "line 2, column 2: '' is no number"),
        (_file("1,1_0\n"), NUMBERS, "line 1, column 2: '1_0' is no number"),
        (_file('1,"2\n3,4\n'), NUMBERS, r"line 2, column 2: '2\\n3,4\\n' is no number"),
        (_file("1" * 140_000 + "x,2\n"), NUMBERS, "line 1: field larger than field limit"),
        (_file("\n\n"), NUMBERS, "has no rows"),
        (_file("\udcff\udcfe1"), NUMBERS, "no text in UTF-8"),
        (_file("II", "a.tif"), NUMBERS, r"a \.tif file is not taken; --input takes \.npy, .*WebP"),
        (_file("BM", "a.bmp"), NUMBERS, r"images are for a tensor of shape \[\?, size, size, 3\]"),
        (_file("1,2,3\n", "a"), NUMBERS, "a file without a suffix is not taken"),
        (_file("1.5\n"), NUMBERS._replace(info=info(tf.int64, None)), "takes int64, found float64"),
        (_file("1\n", "a.txt"), NUMBERS, r"t:0 takes .*such a file is for a tensor of strings"),
        (_file("1\n", "a.tfrecord"), NUMBERS, r"t:0 takes .*such a file is for a tensor of strin"),
        (_file("", "a.txt"), TEXTS, "has no rows"),
        (_file("", "a.tfrecord"), TEXTS, "has no rows"),
        (_folder(), IMAGES, "the folder is empty"),
        (_folder("train/a.png"), IMAGES, "no class train; its classes are ant, bee, cat"),
        *(
            (
                _folder("a.png"),
                Target(info(tf.uint8, None, *sides), None, (), None),
                "images are for",
            )
            for sides in [(), (30, None, 3), (30, 40, 3), (None, None, 4), (None, None)]
        ),
        *(
            (make, GREYS._replace(image_shape=shape), message)
            for shape in (None, (4, 4, 3), (8, 2, 1))
            for make, message in [
                (_folder("a.png"), "images are for a tensor of shape"),
                (_npz(X=ZEROS[..., 0]), r"takes float32 \[\?, 16\], found float32 \[2, 4, 4\]"),
            ]
        ),
        (_npz(X=np.eye(3)), COLUMNS, "rows could be meant as columns: use --feed, or fewer rows"),
        (_idx(np.zeros(3)), GREYS, r"labels-idx1-ubyte \(move it .*expected 2 labels, .*found 3"),
        (_idx(np.full(2, 3)), GREYS, "move it away .*: expected labels from 0 to 2, found 3"),
        (lambda folder: f"{folder}/absent.npz", IMAGES, "absent.npz: No such file"),
        (lambda folder: f"{folder}/absent.pkl", IMAGES, "absent.pkl: No such file"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, make: Callable[[Path], str], target: Target, message: str
) -> None:
    with refused(message, (DataError, PredictionError)):
        open_input(make(tmp_path), target)


@pytest.mark.parametrize("target", [TEXTS, TEXTS._replace(info=info(tf.string, 8))])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\n\nthree\n", [b"one", b"", b"three"]),
        (b"a\r\n\r\nb", [b"a", b"", b"b"]),
        (b"\xff\0\n", [b"\xff\0"]),  # Any bytes, a null at the end too.
    ],
)
def test_strings(tmp_path: Path, target: Target, content: bytes, lines: list[bytes]) -> None:
    """The lines of a text; any other file is a row."""
    (tmp_path / "a.txt").write_bytes(content)
    assert _read(f"{tmp_path}/a.txt", target).tolist() == lines
    (tmp_path / "a.gif").write_bytes(content)
    assert _read(f"{tmp_path}/a.gif", target).tolist() == [content]


@pytest.mark.parametrize(
    ("name", "target", "most"), [("a.txt", TEXTS, 31), ("a.csv", NUMBERS, 125)]
)
def test_a_text_grows_when_it_is_read(tmp_path: Path, name: str, target: Target, most: int) -> None:
    (tmp_path / name).write_bytes(b"1\n" * 100)
    with refused(f"holds 200 bytes; at most {most} are read", DataError):
        open_input(f"{tmp_path}/{name}", target._replace(max_bytes=1000))


def test_large_arrays_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not finite in them is told by its row."""
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    monkeypatch.setattr(file_inputs, "read_npy", None)
    values = np.arange(9 * SIZE * SIZE * 3, dtype=np.float32).reshape(9, SIZE, SIZE, 3)
    values[7, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", values)
    rows = open_input(f"{tmp_path}/a.npy", IMAGES).rows["t:0"]
    np.testing.assert_array_equal(rows.take(np.arange(2, 7)), values[2:7])
    with refused(r"row 7 \(the first such\) holds NaN", PredictionError):
        rows.take(np.arange(5, 9))


def test_uint8_is_scaled_as_in_training_to_the_bit() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(64, 4)
    rows = array_rows(every, info(tf.float32, None, 4), "here", float(UINT8_SCALE))
    trained, _ = LabelledSource(every, np.zeros(64)).rows(np.arange(64))
    assert rows.take(np.arange(2, 64)).tobytes() == trained[2:].tobytes()
    assert trained.tobytes() == (every.astype(np.float32) * np.float32(1 / 255)).tobytes()


def test_other_values_are_taken_as_they_are(images: Any) -> None:
    values = images.astype(np.float32)
    batch: Any = array_rows(values, IMAGES.info, "here", float(UINT8_SCALE)).take(np.arange(1, 3))
    assert batch.base is values  # Without a copy.
    np.testing.assert_array_equal(batch, values[1:3])
    unscaled = array_rows(images, IMAGES.info, "here").take(np.arange(0, 7))
    assert unscaled.dtype == np.float32
    np.testing.assert_array_equal(unscaled, images)
    integers = info(tf.uint8, None, SIZE, SIZE, 3)
    assert array_rows(images, integers, "here", 0.5).take(np.arange(0, 7)).dtype == np.uint8


RECORDS = [b"", b"one", b"two\0", b"x" * 5000]


def test_records_of_a_file_that_is_whole_or_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    content = path.read_bytes()
    assert read_records(str(path), len(content)) == RECORDS
    with refused("holds 5,071 bytes; at most 5,070 are read", DataError):
        read_records(str(path), 5070)
    ends = [*itertools.accumulate((len(record) + 16 for record in RECORDS), initial=0)]
    for length in range(60):
        path.write_bytes(content[:length])
        if length in ends:
            assert read_records(str(path), 60) == RECORDS[: ends.index(length)]
        else:
            with refused(r"is no \.tfrecord file, or is cut short", DataError):
                read_records(str(path), 60)
    for size in (2**40, 2**63, 2**64 - 1):  # It takes no memory.
        path.write_bytes(struct.pack("<QI", size, 0) + bytes(100))
        with refused(f"record 0 claims {size:,} bytes", DataError):
            read_records(str(path), 200)
    path.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    with refused("the checksum of a record does not fit", DataError):
        read_records(str(path), 5071)
