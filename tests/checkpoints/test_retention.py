"""Which checkpoints go, and which one is the best: as a function, then on a folder."""

import math
from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints import folder, manifest
from checkpoints.folder import Retention, Saved, best_checkpoint, steps_to_delete
from errors import CheckpointError
from tests.checkpoints.conftest import save

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
    found = manifest.read(path, 20)
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
        file = path / f"my-model-{step}.data-00000-of-00001"
        content = bytearray(file.read_bytes())
        content[0] ^= 1
        file.write_bytes(content)


def test_a_damaged_best_is_stepped_over_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_a_damaged_best_is_no_longer_kept_after_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the newest it goes; among them it stays until they are others."""
    save(tmp_path, {10: 0.9, 20: 0.5, 30: 0.8, 40: 0.1}, BEST)
    _damage(tmp_path, 10, 30)
    stays = folder.at_start(str(tmp_path), 40, BEST)
    assert caplog.text.count("not kept as the best") == 2
    assert folder.committed_steps(str(tmp_path)) == [30, 40]
    save(tmp_path, {50: 0.05, 60: 0.05}, stays)
    assert folder.committed_steps(str(tmp_path)) == [40, 50, 60]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xff", b'model_checkpoint_path: "gone-7"\n'])
def test_a_lost_or_wrong_state_file_is_written_anew(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
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
