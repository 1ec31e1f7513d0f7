"""The classes that are chosen, the store that decodes images when asked, and rows of any store."""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import SKIP, files
from data.batches import ShuffledBatches, TrainingBatches
from data.files import (
    UINT8_SCALE,
    Array,
    HeldStore,
    LabelledSource,
    Source,
    Store,
    Subset,
)
from data.images import ImageStore, choose, decoding_workers
from errors import BadRowsError, DataError
from tests.conftest import Patch
from tests.data.conftest import BadRows, encode, error_line

KNOWN = ("ant", "bee", "T-shirt/top", "Ähre two")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["ant", "cat"], "^--classes=ant,cat: there is no class 'cat'; the classes are ant, bee"),
        (["ant", "Bee"], "there is no class 'Bee'"),
        (["ant", ""], "there is no class ''"),
        (["bee", "ant", "bee"], "^--classes=bee,ant,bee: names 'bee' twice; the classes are ant"),
        (["bee"], "^--classes=bee: expected two classes or more; the classes are ant, bee"),
    ],
)
def test_bad_choices_are_refused_with_the_known_classes(wanted: list[str], message: str) -> None:
    with error_line(message):
        choose(wanted, KNOWN)
    with error_line(r"the classes are 0, 1, .*, 19, \.\.\.$"):
        choose(["x", "1"], [str(number) for number in range(1000)])
    assert choose(["Ähre two", "ant", "T-shirt/top"], KNOWN) == (3, 0, 2)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Image i has the colour i."""
    paths = [str(tmp_path / "ü b" / f"{i:03d}.png") for i in range(100)]
    (tmp_path / "ü b").mkdir()
    for i, path in enumerate(paths):
        Path(path).write_bytes(encode(np.full((40, 36, 3), i, np.uint8)))
    return paths


@pytest.mark.parametrize("workers", [1, 6])
def test_threads_decode(workers: int, paths: list[str], tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    if workers == 6:  # PNG files end with an end mark.
        for path in paths:
            os.truncate(path, 10_000)
    assert decoding_workers(paths) == decoding_workers([*paths[:9], "missing.png"]) == workers
    assert decoding_workers(["missing.png"]) == decoding_workers([]) == 1
    store = ImageStore(paths[::-1], str(tmp_path))
    assert store.workers == workers
    held = _whole(store)
    taken = held.take(np.arange(100))
    assert (taken == np.arange(100)[::-1].reshape(-1, 1, 1, 1)).all()
    assert _whole(ImageStore([], "")).shape == (0, 32, 32, 3)


def _whole(store: Store, *, keep_bad: bool = False) -> HeldStore:
    """All of it in memory."""
    held = HeldStore(store, store.shape[0])
    held.fill(keep_bad=keep_bad)
    return held


def test_every_bad_file_of_a_batch_is_told(paths: list[str], tmp_path: Path) -> None:
    Path(paths[3]).write_bytes(b"text")
    Path(paths[5]).unlink()
    os.truncate(paths[8], 70)
    os.remove(paths[9])
    os.mkfifo(paths[9])
    store = ImageStore(paths, str(tmp_path))
    with pytest.raises(BadRowsError, match=r"008\.png: is damaged or cut short") as caught:
        store.take(np.array([8, 0, 5, 3, 9]))
    lines = {0: "damaged", 2: "No such file", 3: "is no PNG, JPEG", 4: "no regular file"}
    assert caught.value.errors.keys() == lines.keys()
    assert all(line in str(caught.value.errors[row]) for row, line in lines.items())
    with error_line(r"003\.png: is no PNG"):  # The first of all.
        _whole(store)


def test_the_digest_does_not_depend_on_the_place(paths: list[str], tmp_path: Path) -> None:
    folder, other = str(tmp_path), tmp_path / "other"
    digest = ImageStore(paths, folder).digest()
    other.mkdir()
    os.rename(tmp_path / "ü b", other / "ü b")
    moved = [path.replace(folder, str(other)) for path in paths]
    same, with_slash = (ImageStore(moved, f"{other}{end}").digest() for end in ("", "/"))
    assert same == with_slash == digest
    for changed in (moved[::-1], moved[:-1]):
        assert ImageStore(changed, str(other)).digest() != digest


def test_images_of_a_folder_that_is_away_are_not_skipped(paths: list[str], tmp_path: Path) -> None:
    """Whoever reads: batches under SKIP, the start of a run, its identity."""
    store = ImageStore(paths, str(tmp_path))
    source = LabelledSource(store, np.arange(100))
    examples = TrainingBatches(source, ShuffledBatches(100, 9, 0), SKIP)
    Path(paths[0]).unlink()
    with pytest.raises(BadRowsError):  # A bad image in a folder that is there.
        store.take(np.array([0, 1]))
    looks: list[Callable[[], Any]] = [
        lambda: examples.batch(0),
        lambda: _whole(store, keep_bad=True),
        store.digest,
    ]
    Path(paths[0]).mkdir()  # So is an image that is refused, here because it is none.
    for look in looks[1:]:
        with error_line(r"000\.png: .*s a directory"):
            look()
    (tmp_path / "ü b").rename(tmp_path / "away")
    for look in looks:
        with error_line(r"\.png: .*: its folder cannot be reached; see to its disk"):
            look()


def test_an_image_is_asked_for_again(paths: list[str], tmp_path: Path, monkeypatch: Patch) -> None:
    read, lost = files.read_bytes, [paths[3]]

    def read_bytes(path: str, max_bytes: int) -> bytes:
        if path in lost:
            lost.remove(path)
            raise DataError(f"{path}: no such file")
        return read(path, max_bytes)

    monkeypatch.setattr(files, "read_bytes", read_bytes)
    assert (ImageStore(paths, str(tmp_path)).take(np.array([3])) == 3).all()
    assert not lost


# Rows of arrays and of stores, their digests, and stores that are read into memory.

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
LABELS = np.array([3, 0, 1, 2, 1], np.int64)
INDICES = np.array([4, 0, 4], np.int64)
VALUES = np.random.default_rng(0).integers(0, 256, (300, 2, 3), np.uint8)


def test_uint8_rows_are_scaled_in_float32() -> None:
    for features, labels in ((PIXELS, LABELS), (BadRows(VALUES), np.arange(300) % 7)):
        x, y = LabelledSource(features, labels).rows(INDICES)
        values = features if isinstance(features, np.ndarray) else VALUES
        expected = values[INDICES].astype(np.float32) * np.float32(1 / 255)
        np.testing.assert_array_equal(x, expected, strict=True)
        np.testing.assert_array_equal(y, labels[INDICES], strict=True)
    assert UINT8_SCALE * np.uint8(255) == np.float32(1)
    with pytest.raises(IndexError):
        LabelledSource(PIXELS, LABELS).rows(np.array([5]))


def test_float_rows_come_as_they_are_and_are_the_callers_own() -> None:
    features = np.linspace(-3, 7, 10, dtype=np.float32)
    before = features.copy()
    x, y = LabelledSource(features, features * 2).rows(INDICES)
    np.testing.assert_array_equal([x, y], [before[INDICES], 2 * before[INDICES]], strict=True)
    x += 1
    assert np.array_equal(features, before)


def test_a_subset_numbers_its_members_anew() -> None:
    held = LabelledSource(PIXELS, LABELS)
    for source, workers in ((held, 1), (LabelledSource(BadRows(VALUES, (), 3), np.arange(300)), 3)):
        subset = Subset(source, np.array([3, 1], np.int64))
        pairs = zip(subset.rows(np.array([1, 0, 1])), source.rows(np.array([1, 3, 1])), strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)
        assert np.array_equal(subset.labels, source.labels[[3, 1]])
        assert len(subset) == 2
        assert subset.row_shape == source.row_shape == source.rows(INDICES)[0].shape[1:]
        assert subset.workers == source.workers == workers
    with pytest.raises(ValueError, match="5 features and 4 labels"):
        LabelledSource(np.zeros(5), np.zeros(4))


def test_digest_tells_sources_apart() -> None:
    other_pixel = PIXELS.copy()
    other_pixel.flat[0] ^= 1
    source = LabelledSource(PIXELS, LABELS)
    store, labels = BadRows(VALUES), np.arange(300) % 7
    sources: list[Source] = [
        source,
        LabelledSource(other_pixel, LABELS),
        LabelledSource(PIXELS, LABELS + 1),
        LabelledSource(PIXELS[::-1], LABELS),
        LabelledSource(PIXELS.astype(np.float32), LABELS),
        Subset(source, np.arange(5)),
        Subset(source, np.arange(4)),
        LabelledSource(store, labels),
        LabelledSource(store, labels % 6),
        LabelledSource(store, labels.astype(np.int32)),
    ]
    assert len({each.digest() for each in sources}) == len(sources)
    assert LabelledSource(PIXELS.copy(), LABELS).digest() == source.digest()
    held = _whole(store)
    assert LabelledSource(held, labels).digest() == LabelledSource(store, labels).digest()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_holding_gives_the_same_whatever_the_number_of_workers(workers: int) -> None:
    held = _whole(BadRows(VALUES, workers=workers))
    assert np.array_equal(held.take(INDICES), VALUES[INDICES])
    assert {row.tobytes() for row in held.values} == {row.tobytes() for row in VALUES}
    assert held.workers == 1
    with error_line(r"^100\.png: is bad$"):  # The first one.
        _whole(BadRows(VALUES, (250, 130, 100), workers))
    held = _whole(BadRows(VALUES, (1, 100, 299), workers), keep_bad=True)
    good = np.array([0, 2, 99, 101, 298])
    assert np.array_equal(held.take(good), VALUES[good])
    with pytest.raises(BadRowsError, match=r"299\.png: is bad") as caught:
        held.take(np.array([5, 299, 6, 1]))
    errors = {position: str(error) for position, error in caught.value.errors.items()}
    assert errors == {1: "299.png: is bad", 3: "1.png: is bad"}


@pytest.mark.parametrize("most", [1, 150, 300])
def test_what_is_partly_held_is_read_once_and_stays_the_same(most: int) -> None:
    """Batches of a few epochs, by eight threads at once, some of which overlap."""
    store = BadRows(VALUES)
    held, reads = HeldStore(store, most), Counter[int]()

    def take(indices: Array) -> Array:
        reads.update(indices.tolist())
        return BadRows(VALUES).take(indices)

    store.take = take  # type: ignore[method-assign]
    order = ShuffledBatches(300, 40, seed=3)
    batches = [order.indices(step) for step in range(45)]
    with ThreadPoolExecutor(8) as executor:
        for indices, values in zip(batches, executor.map(held.take, batches), strict=True):
            assert np.array_equal(values, VALUES[indices])
    for _ in range(2):
        before = reads.total()
        held.take(np.arange(300))
        assert reads.total() - before == 300 - most
    assert held.digest() == store.digest()
    assert held.shape == store.shape


def test_bad_rows_of_what_is_partly_held_keep_their_places() -> None:
    held = HeldStore(BadRows(VALUES, (1, 299)), 100)
    held.take(np.array([5, 7]))
    with pytest.raises(BadRowsError, match=r"299\.png: is bad") as caught:
        held.take(np.array([5, 299, 6, 7, 1]))
    assert {place: str(e) for place, e in caught.value.errors.items()} == {
        1: "299.png: is bad",
        4: "1.png: is bad",
    }
