"""The state of a folder follows from its files; reading it beside a process that trains."""

import errno
import functools
import math
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import tensorflow as tf

from checkpoints import folder, layout
from checkpoints.folder import (
    Retention,
    Saved,
    best_checkpoint,
    explain_if_gone,
    steps_to_delete,
)
from checkpoints.lock import Hold, read_newest
from errors import CheckpointError
from tests.checkpoints.conftest import save
from tests.conftest import Log, Patch
from tests.runs import flip_a_bit

_TAILS = ("20261129.tar.gz", "30.txt", "60.meta", "100.npz", "0150.meta", "0150.manifest.tmp")
_ODD_TAILS = ("30.data-00000-of-00002", "٣.index")
OTHERS = ("notes-30.txt", *(f"my-model-{tail}" for tail in (*_TAILS, *_ODD_TAILS)))


def _touch(path: Path, step: int, *suffixes: str) -> None:
    for suffix in suffixes:
        (path / f"my-model-{step}{suffix}").write_bytes(b"")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One checkpoint of ours, one of a stock Saver, two cut short, and what is someone's own."""
    _touch(tmp_path, 100, *layout.CONTENT_SUFFIXES, ".manifest")
    _touch(tmp_path, 20, ".data-00000-of-00001", ".index")
    _touch(tmp_path, 30, *layout.CONTENT_SUFFIXES, ".manifest.tmp")
    _touch(tmp_path, 40, ".data-00000-of-00001")
    _touch(tmp_path, 50, ".manifest.tmp")
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "my-model-100.export").mkdir()
    return tmp_path


def test_names() -> None:
    assert layout.checkpoint_prefix("model1", 190) == "model1/my-model-190"
    for suffix in (*layout.CONTENT_SUFFIXES, layout.MANIFEST_SUFFIX):
        assert layout.split_name(layout.checkpoint_name(7) + suffix) == (7, suffix)
    others = ("checkpoint", "my-model-.index", "my-model-7", "other-7.index", "xmy-model-7.meta")
    assert not any(map(layout.split_name, others))


def test_a_folder_that_may_not_be_listed_is_one_line(path: Path, monkeypatch: Patch) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    monkeypatch.setattr(os, "listdir", Mock(side_effect=error))
    with pytest.raises(CheckpointError, match=f"^{path} cannot be read: Permission denied$"):
        folder.usable_steps(str(path))


def test_leftovers_are_not_usable_and_they_alone_are_cleared(path: Path) -> None:
    assert folder.usable_steps(str(path)) == [20, 100]
    assert folder.usable_steps(str(path / "absent")) == []
    before = {p.name for p in path.iterdir()}
    assert folder.delete_leftovers(str(path)) == [30, 50]
    gone = {f"my-model-30{s}" for s in (*layout.CONTENT_SUFFIXES, ".manifest.tmp")}
    assert before - {p.name for p in path.iterdir()} == gone | {"my-model-50.manifest.tmp"}
    assert folder.remains(str(path)) == ["my-model-40.data-00000-of-00001"]


def test_a_save_moves_what_is_not_ours_out_of_its_way(path: Path) -> None:
    (path / "my-model-60.meta.set-aside").write_bytes(b"older")
    assert folder.make_way(str(path), 60) == [str(path / "my-model-60.meta.set-aside-2")]
    assert (path / "my-model-60.meta.set-aside-2").read_bytes() == b"mine"
    assert folder.make_way(str(path), 30) == []
    assert [p.name for p in path.glob("my-model-30.*") if p.name not in OTHERS] == []


def test_delete_leaves_nothing_of_a_step(path: Path) -> None:
    for step in (100, 20, 30):
        folder.delete_checkpoint(str(path), step)
        assert step not in folder.files_by_step(str(path))
        assert {*OTHERS} <= {p.name for p in path.iterdir()}


# The state file, against what TensorFlow reads and writes, and what others have left.


def test_a_state_file_is_read_by_tensorflow_wherever_the_folder_is(path: Path) -> None:
    names = ['quote"d', "größe", "new\nline", "m-?????-of-00002", "my-model-100"]
    assert folder.write_state(str(path), names)
    assert not folder.write_state(str(path), names)
    assert folder.read_state(f"{path}/checkpoint") == "my-model-100"
    moved = path.rename(path.with_name("elsewhere"))
    state = tf.train.get_checkpoint_state(str(moved))
    assert state.model_checkpoint_path == str(moved / "my-model-100")
    assert [*state.all_model_checkpoint_paths] == [f"{moved}/{name}" for name in names]


def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    for name in ("m-7", "a b.ckpt--1", "gr\u00fcn", ""):
        tf.compat.v1.train.update_checkpoint_state(
            str(tmp_path), f"/elsewhere/{name}", all_model_checkpoint_paths=["/elsewhere/m-6"]
        )
        assert folder.named_checkpoint(f"{tmp_path}/checkpoint") == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r'model_checkpoint_path: "C:\\work\\model.ckpt-3"', "model.ckpt-3"),
        ('all_model_checkpoint_paths: "a"\nmodel_checkpoint_path: "../b"\n', "b"),
        ('all_model_checkpoint_paths: "a"\n', None),
        ("no such thing", None),
        (r'model_checkpoint_path: "\777\x"', None),
        ("", None),
        ("\x00\x80" * 100, None),
    ],
)
def test_what_others_have_left_in_a_state_file(tmp_path: Path, text: str, name: str | None) -> None:
    state = tmp_path / "checkpoint"
    assert folder.named_checkpoint(str(state)) is None
    state.mkdir()
    assert folder.named_checkpoint(str(state)) is None
    state.rmdir()
    state.write_text(text)
    assert folder.named_checkpoint(str(state)) == name


WHOLE = (*layout.CONTENT_SUFFIXES, ".manifest")


def test_the_newest_is_one_that_is_whole(tmp_path: Path) -> None:
    for step, suffixes in ((9, WHOLE), (10, WHOLE), (11, (*WHOLE[:-1], ".manifest.tmp"))):
        _touch(tmp_path, step, *suffixes)
    assert folder.usable_steps(str(tmp_path)) == [9, 10]


def test_an_error_tells_when_the_checkpoint_has_gone(tmp_path: Path) -> None:
    _touch(tmp_path, 10, *WHOLE)
    error = CheckpointError("odd")
    for name in ("my-model-5.meta", "my-model-5"):
        gone = str(explain_if_gone(error, str(tmp_path / name)))
        assert f"{name} is not there, or was deleted" in gone
        assert "the newest is my-model-10.meta" in gone
    for name in ("my-model-10.meta", "other.meta", "nowhere/my-model-1.meta"):
        assert explain_if_gone(error, str(tmp_path / name)) is error


def _save(path: Path, step: int) -> None:
    """As a trainer that keeps the newest one alone."""
    _touch(path, step, *WHOLE)
    folder.after_save(str(path), step, Retention(max_to_keep=1))


def test_what_is_held_goes_with_a_later_save(tmp_path: Path) -> None:
    _save(tmp_path, 1)

    def read(hold: Hold) -> list[int]:
        hold(f"{tmp_path}/my-model-1")
        for step in (2, 3):
            _save(tmp_path, step)
        return folder.usable_steps(str(tmp_path))

    assert read_newest([str(tmp_path)], read) == [1, 3]
    _save(tmp_path, 4)
    assert folder.usable_steps(str(tmp_path)) == [4]


def test_what_is_gone_is_read_anew_so_many_times(tmp_path: Path) -> None:
    """The trainer has saved and deleted before anything could be held."""
    _save(tmp_path, 1)

    def read(last: int, hold: Hold) -> int:
        (step,) = folder.usable_steps(str(tmp_path))
        if step < last:
            _save(tmp_path, step + 1)
        hold(f"{tmp_path}/my-model-{step}")
        if step < last:
            raise CheckpointError(f"my-model-{step} is gone")
        return step

    assert read_newest([str(tmp_path)], functools.partial(read, 20)) == 20
    with pytest.raises(CheckpointError, match=r"faster than they can be read: .*--max_to_keep"):
        read_newest([str(tmp_path)], functools.partial(read, 100))
    assert folder.usable_steps(str(tmp_path)) == [40]


def test_what_is_wrong_with_a_checkpoint_that_is_there_is_said_at_once(tmp_path: Path) -> None:
    _save(tmp_path, 1)

    def read(hold: Hold) -> None:
        (step,) = folder.usable_steps(str(tmp_path))
        hold(f"{tmp_path}/my-model-{step}")
        _save(tmp_path, step + 1)
        raise CheckpointError(f"{step} has no such tensor")

    with pytest.raises(CheckpointError, match=r"^1 has no such tensor"):
        read_newest([str(tmp_path)], read)


# Which checkpoints go, and which one is the best: as a function, then on a folder.

HOUR = 3600.0
HOURLY, BEST = Retention(1, every_n_hours=1), Retention(2, keep_best=True)


def _at(*hours: float) -> list[Saved]:
    return [Saved(step, hour * HOUR) for step, hour in enumerate(hours, 1)]


def _measured(*accuracies: float | None) -> list[Saved]:
    return [Saved(step, step * HOUR, accuracy) for step, accuracy in enumerate(accuracies, 1)]


@pytest.mark.parametrize(
    ("saved", "stays", "doomed"),
    [
        (_at(), Retention(2), []),
        (_at(0, 1), Retention(2), []),
        (_at(0, 1, 2, 3), Retention(2), [1, 2]),
        (_at(0, 1, 2, 3), Retention(0), []),
        (_at(0, 0.5, 1.0, 1.9, 2.0, 2.1, 2.2), HOURLY, [2, 4, 6]),
        # A clock that was ten years ahead for a while: spans are counted anew from there on.
        (_at(87_600, 87_600.5, 0, 0.5, 1.0, 1.5, 2.0, 2.5), HOURLY, [2, 4, 6]),
        # One whose time is not known begins no span.
        ([Saved(1, 0.0), Saved(2, -math.inf), Saved(3, HOUR / 2), Saved(4, HOUR)], HOURLY, [2, 3]),
        # The best is beside the two newest, or one of them; the earliest of equals; none.
        (_measured(0.9, 0.1, 0.2, 0.3), BEST, [2]),
        (_measured(0.1, 0.2, 0.9, 0.3), BEST, [1, 2]),
        (_measured(0.9, 0.9, 0.9, 0.9), BEST, [2]),
        (_measured(None, None, None, None), BEST, [1, 2]),
        (_measured(None, 0.0, None, None), BEST, [1]),
        (_measured(0.9, 0.8, 0.1, 0.1), BEST._replace(damaged=frozenset({1})), [1]),
    ],
    ids=range(13),
)
def test_which_go(saved: list[Saved], stays: Retention, doomed: list[int]) -> None:
    assert steps_to_delete(saved, stays) == doomed


@pytest.mark.parametrize("keep_best", [False, True])
def test_deleting_step_by_step_ends_where_deleting_at_once_does(keep_best: bool) -> None:
    accuracies = (0.1, 0.8, 0.2, 0.9, 0.3, 0.4)
    saved = [Saved(step, step * 0.4 * HOUR, a) for step, a in enumerate(accuracies, 1)]
    stays = Retention(2, every_n_hours=1, keep_best=keep_best)
    present: list[Saved] = []
    for checkpoint in saved:
        present.append(checkpoint)
        doomed = steps_to_delete(present, stays)
        present = [c for c in present if c.step not in doomed]
    at_once = steps_to_delete(saved, stays)
    assert [c.step for c in present] == [c.step for c in saved if c.step not in at_once]


def test_the_best_stays_and_is_found(tmp_path: Path) -> None:
    """Across processes; ties go to the earliest, and the state file names the newest."""
    path = str(tmp_path)
    save(path, {10: 0.5, 20: 0.8, 30: 0.7}, BEST)
    save(path, {40: 0.8, 50: 0.6}, BEST)
    assert folder.committed_steps(path) == [20, 40, 50]
    assert best_checkpoint(path) == f"{path}/my-model-20"
    assert tf.train.latest_checkpoint(path) == f"{path}/my-model-50"
    found = layout.read_manifest(path, 20)
    assert found is not None
    assert found.test_accuracy == 0.8
    save(path, {60: 0.9, 70: 0.1, 80: 0.1, 90: 0.1}, BEST)
    assert folder.committed_steps(path) == [60, 80, 90]
    save(path, {100: 0.1}, Retention(2))
    assert folder.committed_steps(path) == [90, 100]


def test_those_that_say_nothing_are_not_the_best(tmp_path: Path) -> None:
    save(tmp_path, {10: None, 20: None}, BEST)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"no checkpoint that says its test accuracy"):
            best_checkpoint(str(path))
    save(tmp_path, {30: 0.1, 40: None, 50: None}, BEST)
    assert folder.committed_steps(str(tmp_path)) == [30, 40, 50]
    assert best_checkpoint(str(tmp_path)).endswith("my-model-30")


def _damage(path: Path, *steps: int) -> None:
    for step in steps:
        flip_a_bit(path / f"my-model-{step}.data-00000-of-00001")


def test_a_damaged_best_is_stepped_over_with_a_line(tmp_path: Path, caplog: Log) -> None:
    save(tmp_path, {10: 0.9, 20: 0.5, 30: 0.1, 40: 0.1}, Retention(0))
    (tmp_path / "my-model-40.manifest").write_bytes(b"damage")
    _damage(tmp_path, 10)
    assert best_checkpoint(str(tmp_path)).endswith("my-model-20")
    (line,) = (record.getMessage() for record in caplog.records)
    assert "my-model-10 cannot be used" in line
    assert "\n" not in line
    _damage(tmp_path, 20, 30)
    with pytest.raises(CheckpointError, match=r"each of the 3 checkpoints that say .* is damaged"):
        best_checkpoint(str(tmp_path))


def test_a_damaged_best_is_not_kept_after_a_start(tmp_path: Path, caplog: Log) -> None:
    """Beyond the newest it goes; among them it stays until they are others."""
    save(tmp_path, {10: 0.9, 20: 0.5, 30: 0.8, 40: 0.1}, BEST)
    _damage(tmp_path, 10, 30)
    stays = folder.at_start(str(tmp_path), 40, BEST)
    assert caplog.text.count("not kept as the best") == 2
    assert folder.committed_steps(str(tmp_path)) == [30, 40]
    save(tmp_path, {50: 0.05, 60: 0.05}, stays)
    assert folder.committed_steps(str(tmp_path)) == [40, 50, 60]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xff", b'model_checkpoint_path: "gone-7"\n'])
def test_wrong_state_files(tmp_path: Path, content: bytes | None, caplog: Log) -> None:
    caplog.set_level("INFO")
    save(tmp_path, {9: None, 10: None}, Retention(4))
    state = tmp_path / "checkpoint"
    before = state.read_bytes()
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    folder.at_start(str(tmp_path), 10, Retention(4))
    assert state.read_bytes() == before
    assert "rewrote the state file" in caplog.text
