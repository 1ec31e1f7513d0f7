"""What `--data` may name: images, labels and classes as they come to training, and bad ones."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import SKIP
from data.batches import ShuffledBatches, TrainingBatches
from data.files import Array, HeldStore, LabelledSource, Source
from data.image_data import ImageData, ReadOptions, open_image_data
from errors import BadRowsError
from tests.conftest import Log, Patch
from tests.data.conftest import MakeFolder, encode, error_line
from tests.data.test_images import png

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
WITH_NAN = np.where(np.arange(8)[:, np.newaxis, np.newaxis, np.newaxis] == 5, np.nan, PIXELS / 255)
HELD, AS_NEEDED = ReadOptions(), ReadOptions(memory_mb=0)
HELD_OR_NOT = pytest.mark.parametrize("options", [HELD, AS_NEEDED], ids=["held", "not"])


def open_data(
    spec: Path | str,
    fraction: float = 0.0,
    seed: int = 0,
    options: ReadOptions = HELD,
    ramp_path: str = "not used",
) -> ImageData:
    return open_image_data(
        str(spec), ramp_path=ramp_path, validation_fraction=fraction, seed=seed, options=options
    )


def all_rows(source: Source | None) -> tuple[Array, ...]:
    assert source is not None
    return source.rows(np.arange(len(source)))


def colours(x: Array) -> list[list[int]]:
    """The red and green of each image of `make_folder`: which subfolder and which file it was."""
    found: list[list[int]] = np.rint(x[:, 0, 0, :2] * 255).astype(int).tolist()
    return found


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Saves arrays as an .npz file and returns its path."""

    def savez(**arrays: Any) -> Path:
        np.savez(tmp_path / "im.npz", **arrays)
        return tmp_path / "im.npz"

    return savez


@pytest.fixture
def save_npy(tmp_path: Path) -> Callable[[Any, Any], Path]:
    """Saves images and labels beside each other; returns the path of the images."""

    def save_both(images: Any, labels: Any) -> Path:
        np.save(tmp_path / "im.npy", images)
        np.save(tmp_path / "im.labels.npy", labels)
        return tmp_path / "im.npy"

    return save_both


def test_ramp(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "new" / "data10_4.npz"
    data = open_data("ramp", ramp_path=str(path))
    x, y = all_rows(data.train)
    assert np.array_equal(x, (np.arange(30720).reshape(10, 32, 32, 3) / 255).astype(np.float32))
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 2, 0]
    assert (data.test, data.class_names, data.num_classes) == (None, (), 4)
    assert not path.exists()
    assert data.write is not None
    data.write()
    again = open_data("ramp", ramp_path=str(path))
    assert again.identity() == data.identity()
    assert not caplog.messages  # Of its range.


def test_npz_of_uint8_and_of_float(save: Any, caplog: Log) -> None:
    data = open_data(save(X=PIXELS, Y=LABELS.astype(np.uint8), other=np.array([None])))
    x, y = all_rows(data.train)
    np.testing.assert_array_equal(x, PIXELS * np.float32(1 / 255), strict=True)
    np.testing.assert_array_equal(y, LABELS, strict=True)
    assert data[1:4] == (None, (), 3)
    x, _ = all_rows(open_data(save(X=PIXELS / 255, Y=LABELS.astype(np.float64))).train)
    assert np.array_equal(x, (PIXELS / 255).astype(np.float32))
    assert not caplog.messages
    with caplog.at_level(logging.WARNING, "absl"):
        open_data(save(X=PIXELS.astype(np.float32), Y=LABELS))
    (message,) = caplog.messages
    assert "im.npz: X: values in [0, 255]; expected [0, 1]" in message


@pytest.mark.parametrize(
    "names",
    ["x y", "images labels", "x_train y_train x_test y_test", "X_train y_train X_test y_test"],
)
def test_arrays_as_others_call_them(save: Any, names: str, caplog: Log) -> None:
    """With labels in a column, and more beside them."""
    values = [PIXELS, LABELS[:, np.newaxis], PIXELS[:3], LABELS[:3, np.newaxis]]
    given = dict(zip(names.split(), values, strict=False)) | {"val_images": PIXELS, "Y": LABELS}
    with caplog.at_level(logging.INFO, "absl"):
        data = open_data(save(**given))
    assert caplog.messages[0].endswith(f"those to test on: {names.split()}")
    for part, count in ((data.train, 8), (data.test, 3))[: len(names.split()) // 2]:
        x, y = all_rows(part)
        np.testing.assert_array_equal(x, PIXELS[:count] * np.float32(1 / 255), strict=True)
        np.testing.assert_array_equal(y, LABELS[:count], strict=True)
    with error_line("im.npz: test_labels has classes that train_labels has not"):
        parts = {"train_images": PIXELS, "train_labels": LABELS, "test_images": PIXELS}
        open_data(save(**parts, test_labels=LABELS + 1))


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (40, 24, 3)])
def test_images_of_an_npz_are_resized_as_files_are(save: Any, shape: Any, caplog: Log) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    with caplog.at_level(logging.INFO, "absl"):
        x, _ = all_rows(open_data(save(X=images, Y=LABELS)).train)
    assert "X [8, " in caplog.messages[0]
    assert "is resized to [32, 32, 3]" in caplog.messages[0]
    for found, image in zip(x, images, strict=True):
        pillow = Image.fromarray(image.squeeze()).convert("RGB")
        expected = np.asarray(pillow.resize((32, 32), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(found, expected * np.float32(1 / 255))


def test_validation_is_held_out_by_class_and_seed(save: Any) -> None:
    path = save(X=PIXELS, Y=LABELS)
    data = open_data(path, fraction=0.4, seed=3)
    (train_x, train_y), (test_x, test_y) = all_rows(data.train), all_rows(data.test)
    assert np.bincount(test_y).tolist() == [1, 1, 1]
    found = np.rint(np.concatenate([train_x, test_x]) * 255).astype(np.uint8)
    order = [int(np.flatnonzero((image == PIXELS).all(axis=(1, 2, 3)))[0]) for image in found]
    assert sorted(order) == list(range(8))
    assert order[:5] == sorted(order[:5])
    assert [*train_y, *test_y] == LABELS[order].tolist()
    same, other = (all_rows(open_data(path, 0.4, seed).test)[0] for seed in (3, 4))
    assert np.array_equal(same, test_x)
    assert not np.array_equal(other, test_x)


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (PIXELS.reshape(8, -1), LABELS, r"(: X)?: expected the shape .* found \[8, 3072\]"),
        (PIXELS.astype(int), LABELS, "(: X)?: expected uint8 .* found int64"),
        (PIXELS.astype(object), LABELS, "(: X)?: is an array of objects"),
        (PIXELS, LABELS[:5], ".* holds 8 images, but .* 5 labels"),
        (PIXELS, LABELS - 1, ".*: row 0 .* is -1"),
        (PIXELS, LABELS * 2, ".*: the class 1 has no image"),
        (PIXELS, LABELS.astype(object), ".*: is an array of objects"),
        (WITH_NAN, LABELS, r"(: X: row 5 .* NaN|.*: row 5 .* NaN.*; --on_bad_image=skip goes on)"),
    ],
)
def test_bad_arrays(images: Any, labels: Any, line: str, save: Any, save_npy: Any) -> None:
    with error_line(rf"im\.npz{line}"):
        open_data(save(X=images, Y=labels))
    with error_line(rf"im\.(labels\.)?npy{line}"):
        open_data(save_npy(images, labels))


def test_arrays_that_are_missing_or_large(save: Any, save_npy: Any, monkeypatch: Patch) -> None:
    with error_line(r"im\.npz: holds no array X; it holds Y, Z"):
        open_data(save(Y=LABELS, Z=LABELS))
    monkeypatch.setattr("data.image_data.MAX_NPZ_BYTES", 1000)
    with error_line("X: claims 24,576 bytes; at most 1,000 are unpacked"):
        open_data(save(X=PIXELS, Y=LABELS))
    path = save_npy(PIXELS, LABELS)
    for name in ("im.npy", "im.labels.npy"):
        content = (path.parent / name).read_bytes()
        (path.parent / name).write_bytes(content[:-1])
        with error_line(rf"{re.escape(name)}: its header claims"):
            open_data(path)
        (path.parent / name).write_bytes(content)
    with error_line(r"im\.labels\.npy: expected the shape \[N, 32, 32, 3\], found \[8\]"):
        open_data(path.with_suffix(".labels.npy"))
    os.remove(path.with_suffix(".labels.npy"))
    with error_line(r"im\.npy: expected the labels, .* in .*/im\.labels\.npy; found no such"):
        open_data(path)


def test_folder_of_classes(make_folder: MakeFolder) -> None:
    folder = make_folder({"zoo animal": 2, "Ähre": 1, "apple": 3, ".git": 1})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0000.png"):
        Path(folder, "apple", name).write_bytes(b"not an image")
    Path(folder, "notes.txt").write_text("files beside the classes are nobody's images")
    data = open_data(folder)
    assert data[1:4] == (None, ("apple", "zoo animal", "Ähre"), 3)
    x, y = all_rows(data.train)
    assert (x.dtype.name, x.shape) == ("float32", (6, 32, 32, 3))
    assert y.tolist() == [0, 0, 0, 1, 1, 2]
    assert colours(x) == [[2, 0], [2, 1], [2, 2], [0, 0], [0, 1], [1, 0]]


LEFT = [".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "#recycle", "lost+found"]
LEFT += ["System Volume Information", "__pycache__", ".git", "#snapshot", ".Trash-1000"]


def test_what_others_leave_is_no_class_and_no_image(make_folder: MakeFolder) -> None:
    """Systems, archivers, synchronisers, browsers and editors; a class of such alone is empty."""
    folder = make_folder({"a": 2, "b": 2} | dict.fromkeys(LEFT, 1))
    files = ["._0.png", "Thumbs.db", "ehthumbs_vista.db", "desktop.ini", "Icon\r", "0000.png~"]
    files += ["~$0.png", "#0.png#", "0.png.tmp", "0.png.crdownload", "0.png.part", ".0.png.swp"]
    for name in files:
        Path(folder, "a", name).write_bytes(b"not an image")
    data = open_data(folder, options=ReadOptions(on_bad=SKIP))
    assert data.class_names == ("a", "b")
    assert colours(all_rows(data.train)[0]) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    for path in Path(folder, "b").iterdir():
        path.rename(f"{path}.tmp")
    with error_line("images/b: the class b has no image"):
        open_data(folder, options=ReadOptions(on_bad=SKIP))


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_a_class_without_one_image_that_can_be_read(
    make_folder: MakeFolder, save_npy: Any, memory_mb: int
) -> None:
    """It is an error, although such images are skipped."""
    options = ReadOptions(on_bad=SKIP, memory_mb=memory_mb)
    folder = Path(make_folder({"train/a": 3, "train/b": 2, "test/a": 1, "test/b": 2}))
    (folder / "test" / "b" / "0000.png").write_bytes(b"")
    assert open_data(folder, options=options).class_names == ("a", "b")
    (folder / "test" / "b" / "0001.png").write_bytes(b"")
    with error_line(r"no image of the class b can be read: .*test/b/000\d\.png: is no PNG"):
        open_data(folder, options=options)
    bad = np.where((LABELS == 1)[:, np.newaxis, np.newaxis, np.newaxis], np.nan, PIXELS / 255)
    with error_line(r"no image of the class 1 can be read: .*im\.npy: row 7 holds NaN"):
        open_data(save_npy(bad, LABELS), options=options)


def test_folder_of_train_and_test(make_folder: MakeFolder, caplog: Log) -> None:
    folder = make_folder({"train/a": 2, "train/b": 1, "test/a": 1, "test/b": 2})
    with caplog.at_level(logging.INFO, "absl"):
        data = open_data(folder, fraction=0.5)
    assert data.class_names == ("a", "b")
    assert all_rows(data.train)[1].tolist() == [0, 0, 1]
    x, y = all_rows(data.test)
    assert y.tolist() == [0, 1, 1]
    assert colours(x) == [[2, 0], [3, 0], [3, 1]]
    (line,) = caplog.messages
    assert line == f"--validation_fraction is not used: {folder}/test is there to test on"


@pytest.mark.parametrize("names", [("train/a", "train/b"), ("car", "train")])
def test_train_may_be_alone_or_a_class(names: tuple[str, str], make_folder: MakeFolder) -> None:
    data = open_data(make_folder(dict.fromkeys(names, 1)))
    assert data.class_names == tuple(name.removeprefix("train/") for name in names)
    assert data.test is None


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"only": 3}, "expected two classes or more, found only only"),
        ({"train/only": 3}, "train: expected two classes or more, found only only"),
        ({"a": 2, "b/deeper": 2}, "b/deeper: Is a directory"),
        ({"a": 1, "b": 0}, "b: the class b has no image"),
        ({"test/a": 1, "test/b": 1}, "expected train/ with or without test/, found test/"),
        ({"train/a": 1, "test/a": 1, "val/a": 1}, "train/ .*, found test/, train/, val/"),
        ({"train/a": 1, "train/b": 1, "test/a": 1}, "same classes; only in one of them: b"),
        ({"train/a": 1, "train/b": 1, "test/b": 1, "test/c": 1}, "only in one of them: a, c"),
    ],
)
def test_other_folders(counts: dict[str, int], message: str, make_folder: MakeFolder) -> None:
    with error_line(f"images.*{message}"):
        open_data(make_folder(counts))


@pytest.mark.parametrize("images", [PIXELS, PIXELS / 255])
def test_npy_gives_what_npz_does_held_or_not(images: Any, save: Any, save_npy: Any) -> None:
    npz = open_data(save(X=images, Y=LABELS), 0.4, 3)
    path = save_npy(images, LABELS.astype(np.uint8))
    held, needed = (open_data(path, 0.4, 3, options) for options in (HELD, AS_NEEDED))
    for npy in (held, needed):
        for ours, theirs in ((npy.train, npz.train), (npy.test, npz.test)):
            for mine, other in zip(all_rows(ours), all_rows(theirs), strict=True):
                np.testing.assert_array_equal(mine, other, strict=True)
        assert npy[2:4] == npz[2:4] == ((), 3)
    assert held.identity() == needed.identity()
    assert held.train.digest().startswith("sampled:")  # Of a part of them, too.


def test_training_and_test_images_count_together(make_folder: MakeFolder) -> None:
    """Of 163 + 163 images of 3,072 bytes, both are held, or a part of both, or none."""
    folder = make_folder({"train/a": 100, "train/b": 63, "test/a": 100, "test/b": 63})
    identities = []
    for memory_mb, count in ((0, 0), (1, 162), (2, 163)):
        data = open_data(folder, options=ReadOptions(memory_mb=memory_mb))
        for source in (data.train, data.test):
            assert isinstance(source, LabelledSource)
            held = source.features.values if isinstance(source.features, HeldStore) else ()
            assert len(held) == count
        identities.append(data.identity())
    assert identities[0] == identities[1] == identities[2]


@HELD_OR_NOT
def test_classes_are_picked_by_name(options: ReadOptions, make_folder: MakeFolder) -> None:
    counts = {"train/a b": 2, "train/é": 1, "train/z": 3, "test/z": 1, "test/é": 2, "test/a b": 1}
    data = open_data(make_folder(counts), options=options._replace(classes=("z", "a b")))
    assert data[2:4] == (("z", "a b"), 2)
    x, y = all_rows(data.train)
    assert y.tolist() == [1, 1, 0, 0, 0]
    assert colours(x) == [[0, 0], [0, 1], [2, 0], [2, 1], [2, 2]]
    x, y = all_rows(data.test)
    assert y.tolist() == [1, 0]
    assert colours(x) == [[5, 0], [3, 0]]


def test_classes_without_names_are_picked(save: Any, save_npy: Any, tmp_path: Path) -> None:
    options = ReadOptions(classes=("2", "0"))
    path = save(X=PIXELS, Y=LABELS)
    for spec in (path, save_npy(PIXELS, LABELS)):
        data = open_data(spec, options=options)
        x, y = all_rows(data.train)
        assert data[2:4] == (("2", "0"), 2)
        assert np.array_equal(x, PIXELS[[0, 2, 3, 5, 6]] * np.float32(1 / 255))
        assert y.tolist() == [1, 0, 1, 0, 1]
    ramp = open_data("ramp", options=options, ramp_path=str(tmp_path / "r"))
    assert all_rows(ramp.train)[1].tolist() == [1, 1, 0, 0, 0, 1]
    with error_line("--classes=0,3: there is no class '3'; the classes are 0, 1, 2"):
        open_data(path, options=ReadOptions(classes=("0", "3")))
    data = open_data(path, 0.5, options=ReadOptions(classes=("1", "0")))
    assert np.bincount(all_rows(data.train)[1]).tolist() == [1, 1]
    assert np.bincount(all_rows(data.test)[1]).tolist() == [2, 2]


def test_a_folder_whose_parts_are_links_is_read(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = Path(make_folder({"a": 2, "b": 2}))
    linked = tmp_path / "linked"
    (linked / "b").mkdir(parents=True)
    (linked / "a").symlink_to(folder / "a")
    (linked / "b" / "0000.png").symlink_to(folder / "b" / "0001.png")
    (linked / "self").symlink_to(linked)
    x, y = all_rows(open_data(linked, options=ReadOptions(classes=("a", "b"))).train)
    assert y.tolist() == [0, 0, 1]
    assert colours(x) == [[0, 0], [0, 1], [1, 1]]


@HELD_OR_NOT
def test_bad_files(options: ReadOptions, make_folder: MakeFolder, caplog: Log) -> None:
    folder = Path(make_folder({"a": 6, "b": 6}))
    whole = encode(np.zeros((32, 32, 3), np.uint8))
    for name, content in (("1", png(10_000, 10_000, b"")), ("3", b""), ("4", whole[:60])):
        (folder / "a" / f"000{name}.png").write_bytes(content)
    # The first one, or where it is not held, the first of the epoch's order.
    line = r"a/0001\.png: has 10000 x 10000" if options is HELD else r"a/000[134]\.png: "
    with error_line(rf"{line}.*; --on_bad_image=skip goes on without it$"):
        data = open_data(folder, options=options)  # Refused here where it is held.
        TrainingBatches(data.train, ShuffledBatches(12, 12, 0)).batch(0)
    data = open_data(folder, options=options._replace(on_bad=SKIP))
    with pytest.raises(BadRowsError):
        all_rows(data.train)
    x, _ = TrainingBatches(data.train, ShuffledBatches(12, 12, 0), SKIP).batch(0)
    left = [[0, 0], [0, 2], [0, 5], *([1, i] for i in range(6))]
    assert np.unique(colours(x), axis=0).tolist() == left
    assert len(x) == 12
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3)])
def test_shape_and_scale(make_folder: MakeFolder, save: Any, save_npy: Any, shape: Any) -> None:
    """The second folder's images have a red of 1, and as grey, a brightness of 0."""
    ones = np.ones((6, *shape), np.uint8)
    options = ReadOptions(image_shape=shape, scale=np.float32(2.0))
    for spec in (save(X=ones, Y=LABELS[:6]), save_npy(ones, LABELS[:6])):
        images, _ = all_rows(open_data(spec, options=options).train)
        np.testing.assert_array_equal(images, np.full((6, *shape), 2.0))
    images, _ = all_rows(open_data(make_folder({"a": 1, "b": 1}), options=options).train)
    assert images.shape == (2, *shape)
    np.testing.assert_array_equal(images[1, 0, 0], [2, 0, 0] if shape[2] == 3 else [0])
