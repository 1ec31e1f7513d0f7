"""The classes that are chosen, and the store that decodes images when they are asked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import SKIP, files
from data.batches import ShuffledBatches, TrainingBatches
from data.image_folder import ImageStore, choose
from data.images import decoding_workers
from data.source import HeldStore, LabelledSource
from errors import BadRowsError, DataError
from tests.conftest import Patch
from tests.data.conftest import encode, error_line

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
    held = HeldStore(store, keep_bad=False)
    assert (held.values == np.arange(100)[::-1].reshape(-1, 1, 1, 1)).all()
    assert HeldStore(ImageStore([], ""), keep_bad=False).shape == (0, 32, 32, 3)


def test_every_bad_file_of_a_batch_is_told(paths: list[str], tmp_path: Path) -> None:
    Path(paths[3]).write_bytes(b"text")
    Path(paths[5]).unlink()
    os.truncate(paths[8], 70)
    os.remove(paths[9])
    os.mkfifo(paths[9])
    store = ImageStore(paths, str(tmp_path))
    with pytest.raises(BadRowsError, match=r"008\.png: is damaged or cut short") as caught:
        store.take(np.array([8, 0, 5, 3, 9]))
    lines = {0: "damaged", 2: "No such file", 3: "neither a PNG nor a JPEG", 4: "no regular file"}
    assert caught.value.errors.keys() == lines.keys()
    assert all(line in str(caught.value.errors[row]) for row, line in lines.items())
    with error_line(r"003\.png: is neither"):  # The first of all.
        HeldStore(store, keep_bad=False)


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
        lambda: HeldStore(store, keep_bad=True),
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
