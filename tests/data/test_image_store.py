import os
from pathlib import Path

import numpy as np
import pytest

from data import files, images
from data.batches import ShuffledBatches, TrainingBatches
from data.image_folder import ImageStore
from data.images import decoding_workers, resize_grey
from data.options import SKIP
from data.source import StoredSource, hold
from errors import BadRowsError
from tests.data.conftest import DataErrorLine, Encode


@pytest.fixture
def paths(tmp_path: Path, encode: Encode) -> list[str]:
    """Image i has the colour i."""
    paths = [str(tmp_path / "ü b" / f"{i:03d}.png") for i in range(100)]
    (tmp_path / "ü b").mkdir()
    for i, path in enumerate(paths):
        Path(path).write_bytes(encode(np.full((40, 36, 3), i, np.uint8)))
    return paths


def test_files_are_decoded_when_asked_for(paths: list[str], tmp_path: Path) -> None:
    files = ImageStore(paths, str(tmp_path))
    assert (files.shape, files.dtype) == ((100, 32, 32, 3), np.dtype(np.uint8))
    for rows in ([99, 0, 7, 7], []):
        taken = files.take(np.array(rows, np.int64))
        assert (taken.shape, taken.dtype) == ((len(rows), 32, 32, 3), np.dtype(np.uint8))
        assert (taken == np.array(rows).reshape(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("threshold", [0, 10**6])
def test_held_images_are_in_order_with_one_thread_and_many(
    threshold: int, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_BYTES_THAT_PAY", threshold)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    files = ImageStore(paths, str(tmp_path))
    assert files.workers == (1 if threshold else 6)
    held = hold(files, keep_bad=False)
    assert (held.values == np.arange(100).reshape(-1, 1, 1, 1)).all()


def test_workers_follow_from_the_sizes_of_the_files(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert decoding_workers(paths) == 1
    for path in paths[::2]:
        os.truncate(path, 100_000)
    assert decoding_workers(paths) == 8
    assert decoding_workers([*paths[:2], "missing.png"]) == 8
    assert decoding_workers(["missing.png"]) == 1
    assert decoding_workers([]) == 1


def test_every_bad_file_of_a_batch_is_told(paths: list[str], tmp_path: Path) -> None:
    Path(paths[3]).write_bytes(b"text")
    Path(paths[5]).unlink()
    os.truncate(paths[8], 70)
    os.remove(paths[9])
    os.mkfifo(paths[9])
    with pytest.raises(BadRowsError, match=r"008\.png: is damaged or cut short") as caught:
        ImageStore(paths, str(tmp_path)).take(np.array([8, 0, 5, 3, 9]))
    messages = {position: str(error) for position, error in caught.value.errors.items()}
    assert [*messages] == [0, 2, 3, 4]
    assert "No such file" in messages[2]
    assert "neither a PNG nor a JPEG" in messages[3]
    assert "no regular file" in messages[4]


def test_links_are_followed_out_of_the_folder(
    paths: list[str], tmp_path: Path, data_error_line: DataErrorLine
) -> None:
    (tmp_path / "data").mkdir()
    for name, target in (("0.png", paths[7]), ("1.png", "/nowhere/at/all.png")):
        (tmp_path / "data" / name).symlink_to(target)
    files = ImageStore([str(tmp_path / "data" / f"{i}.png") for i in (0, 1)], str(tmp_path))
    assert (files.take(np.array([0])) == 7).all()
    with data_error_line(r"data/1\.png: .*No such file"):
        files.take(np.array([1]))


def test_the_digest_does_not_depend_on_the_place(paths: list[str], tmp_path: Path) -> None:
    folder = str(tmp_path)
    digest = ImageStore(paths, folder).digest()
    os.rename(tmp_path / "ü b", tmp_path / "moved")
    (tmp_path / "other").mkdir()
    os.rename(tmp_path / "moved", tmp_path / "other" / "ü b")
    moved = [path.replace(folder, f"{folder}/other") for path in paths]
    assert ImageStore(moved, f"{folder}/other").digest() == digest
    assert ImageStore(moved, f"{folder}/other/").digest() == digest
    assert ImageStore(moved[::-1], f"{folder}/other").digest() != digest
    assert ImageStore(moved[:-1], f"{folder}/other").digest() != digest


def test_grey_arrays_become_what_their_files_do(encode: Encode) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    from PIL import Image

    files = [encode(Image.fromarray(image)) for image in grey]
    expected = np.stack([images.decode_image(content, "a.png") for content in files])
    assert np.array_equal(resize_grey(grey), expected)


@pytest.mark.parametrize("shape", [(12, 12, 3), (8, 8, 1)])
def test_images_can_be_of_another_size_and_grey(
    paths: list[str], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    taken = ImageStore(paths, str(tmp_path), shape).take(np.array([99, 7]))
    assert (taken == np.array([99, 7]).reshape(-1, 1, 1, 1)).all()
    assert taken.shape == (2, *shape)


def test_images_are_read_in_order(tmp_path: Path, encode: Encode) -> None:
    # More than one task holds.
    paths = [str(tmp_path / f"{i} ü.png") for i in range(150)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(encode(np.full((4, 4, 3), i, np.uint8)))
    images = hold(ImageStore(paths[::-1], str(tmp_path)), keep_bad=False).values
    assert images.dtype == np.uint8
    assert images.shape == (150, 32, 32, 3)
    assert (images == np.arange(150)[::-1].reshape(150, 1, 1, 1)).all()


def test_no_images_are_none() -> None:
    assert hold(ImageStore([], ""), keep_bad=False).shape == (0, 32, 32, 3)


def test_first_bad_image_is_named(
    tmp_path: Path, encode: Encode, data_error_line: DataErrorLine
) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(200)]
    for path in paths:
        Path(path).write_bytes(encode(np.zeros((4, 4, 3), np.uint8)))
    for bad in (90, 140, 199):
        Path(paths[bad]).write_bytes(b"no image")
    with data_error_line(r"90\.png: is neither"):
        hold(ImageStore(paths, str(tmp_path)), keep_bad=False)
    Path(paths[3]).unlink()
    with data_error_line(r"/3\.png: .*No such file"):
        hold(ImageStore(paths, str(tmp_path)), keep_bad=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(files, "sleep", waited.append)
    return waited


def test_a_folder_that_is_away_for_a_moment_is_waited_for(
    paths: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, folder, away = ImageStore(paths, str(tmp_path)), tmp_path / "ü b", tmp_path / "away"
    examples = TrainingBatches(
        StoredSource(store, np.arange(100)), ShuffledBatches(100, 9, 0), SKIP
    )
    (expected, labels), digest = examples.batch(0), store.digest()
    monkeypatch.setattr(files, "sleep", lambda _: away.rename(folder))
    folder.rename(away)
    np.testing.assert_array_equal(examples.batch(0)[0], expected)
    folder.rename(away)
    assert store.digest() == digest
    assert "skipped" not in caplog.text
    assert len(caplog.messages) == 2
    assert caplog.messages[0].endswith("its folder cannot be reached; trying again in 1 s")
    np.testing.assert_array_equal(examples.batch(0)[1], labels)


def test_a_folder_that_stays_away_ends_the_run(
    paths: list[str], tmp_path: Path, waits: list[float], data_error_line: DataErrorLine
) -> None:
    """Whoever reads: batches under SKIP, the start of a run, its identity."""
    store = ImageStore(paths, str(tmp_path))
    examples = TrainingBatches(
        StoredSource(store, np.arange(100)), ShuffledBatches(100, 9, 0), SKIP
    )
    (tmp_path / "ü b").rename(tmp_path / "away")
    for look in (lambda: examples.batch(0), lambda: hold(store, keep_bad=True), store.digest):
        waits.clear()
        with data_error_line(r"\.png: .*: its folder could not be reached for 10 s; see to its"):
            look()
        assert waits[:3] == [1, 3, 6]


def test_a_bad_image_in_a_folder_that_is_there_is_not_waited_for(
    paths: list[str], tmp_path: Path, waits: list[float]
) -> None:
    Path(paths[0]).unlink()
    Path(paths[1]).write_bytes(b"text")
    with pytest.raises(BadRowsError):
        ImageStore(paths, str(tmp_path)).take(np.array([0, 1]))
    assert waits == []
