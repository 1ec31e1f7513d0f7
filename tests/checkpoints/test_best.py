"""The checkpoint with the best test accuracy, as the folder tells it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints import folder, manifest
from checkpoints.bundle import VariableSpec
from checkpoints.folder import best_checkpoint
from checkpoints.naming import Retention
from checkpoints.writer import CheckpointWriter, RunRecord
from errors import CheckpointError

Values = dict[str, npt.NDArray[Any]]
Specs = dict[str, VariableSpec]


def _save(
    path: Path,
    specs: Specs,
    values: Values,
    accuracies: dict[int, float | None],
    *,
    keep_best: bool = True,
) -> None:
    """Saves these steps with two kept, in one process."""
    retention, record = Retention(2, keep_best=keep_best), RunRecord(b"a meta graph", {}, {})
    with CheckpointWriter(str(path), specs, record, retention) as writer:
        for step, accuracy in accuracies.items():
            writer.save(step, values | {"global_step": np.array(step, np.int64)}, accuracy)


def test_it_stays_and_is_found(tmp_path: Path, specs: Specs, values: Values) -> None:
    """Across processes; ties go to the earliest, and the state file names the newest."""
    _save(tmp_path, specs, values, {10: 0.5, 20: 0.8, 30: 0.7})
    _save(tmp_path, specs, values, {40: 0.8, 50: 0.6})
    assert folder.committed_steps(str(tmp_path)) == [20, 40, 50]
    assert best_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-20")
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-50")
    found = manifest.read(str(tmp_path), 20)
    assert found is not None
    assert found.test_accuracy == 0.8
    manifest.verify_files(str(tmp_path), found)


def test_a_better_one_takes_its_place(tmp_path: Path, specs: Specs, values: Values) -> None:
    _save(tmp_path, specs, values, {10: 0.5, 20: 0.4, 30: 0.3})
    assert folder.committed_steps(str(tmp_path)) == [10, 20, 30]
    _save(tmp_path, specs, values, {40: 0.9})
    assert folder.committed_steps(str(tmp_path)) == [30, 40]
    _save(tmp_path, specs, values, {50: 0.2, 60: 0.2, 70: 0.2})
    assert folder.committed_steps(str(tmp_path)) == [40, 60, 70]


def test_those_that_say_nothing_are_not_the_best(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """Such as those of a run that began without keeping the best."""
    _save(tmp_path, specs, values, {10: None, 20: None})
    with pytest.raises(CheckpointError, match=r"no checkpoint that says its test accuracy") as told:
        best_checkpoint(str(tmp_path))
    assert "\n" not in str(told.value)
    _save(tmp_path, specs, values, {30: 0.1, 40: None, 50: None})
    assert folder.committed_steps(str(tmp_path)) == [30, 40, 50]
    assert best_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-30")


@pytest.mark.parametrize("name", ["", "absent"])
def test_a_folder_without_checkpoints_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        best_checkpoint(str(tmp_path / name))


def test_it_goes_where_it_is_no_longer_asked_for(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, {10: 0.9, 20: 0.1, 30: 0.1})
    _save(tmp_path, specs, values, {40: 0.1}, keep_best=False)
    assert folder.committed_steps(str(tmp_path)) == [30, 40]


def test_one_with_a_damaged_manifest_is_not_the_best(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, {10: 0.9, 20: 0.5, 30: 0.1})
    (tmp_path / "my-model-10.manifest").write_bytes(b"damage")
    assert best_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-20")


def test_one_that_was_stepped_over_takes_no_good_ones_place(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """Step 30 is damaged, so training goes on from 20; the best up to there is 10."""
    _save(tmp_path, specs, values, {10: 0.5, 15: 0.1, 20: 0.2, 30: 0.9})
    assert folder.committed_steps(str(tmp_path)) == [20, 30]
    _save(tmp_path, specs, values, {21: 0.1, 22: 0.1})
    assert folder.committed_steps(str(tmp_path)) == [20, 21, 22, 30]


def test_a_start_clears_the_best_that_another_has_replaced(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """What a kill between the commit of the new best and the deletion of the old one leaves."""
    _save(tmp_path, specs, values, {10: 0.5, 20: 0.1, 30: 0.1})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "after_save", lambda *_: False)
        _save(tmp_path, specs, values, {40: 0.9})
    assert folder.committed_steps(str(tmp_path)) == [10, 20, 30, 40]
    folder.at_start(str(tmp_path), 40, Retention(2, keep_best=True))
    assert folder.committed_steps(str(tmp_path)) == [30, 40]
    assert len(list(tmp_path.iterdir())) == 2 * 4 + 1


def test_a_damaged_best_is_stepped_over_with_a_line(
    tmp_path: Path, specs: Specs, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, specs, values, {10: 0.9, 20: 0.5, 30: 0.1})
    _damage(tmp_path, 10)
    assert best_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-20")
    (line,) = (record.getMessage() for record in caplog.records)
    assert "my-model-10 cannot be used" in line
    assert "\n" not in line
    for step in (20, 30):
        _damage(tmp_path, step)
    with pytest.raises(CheckpointError, match=r"each of the 3 checkpoints that say .* is damaged"):
        best_checkpoint(str(tmp_path))


def test_a_damaged_best_is_no_longer_kept_after_a_start(
    tmp_path: Path, specs: Specs, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the newest it goes; among them it stays until they are others."""
    _save(tmp_path, specs, values, {10: 0.9, 20: 0.5, 30: 0.8, 40: 0.1})
    for step in (10, 30):
        _damage(tmp_path, step)
    retention = folder.at_start(str(tmp_path), 40, Retention(2, keep_best=True))
    assert caplog.text.count("not kept as the best") == 2
    assert folder.committed_steps(str(tmp_path)) == [30, 40]
    record = RunRecord(b"a meta graph", {}, {})
    with CheckpointWriter(str(tmp_path), specs, record, retention) as writer:
        for step in (50, 60):
            writer.save(step, values | {"global_step": np.array(step, np.int64)}, 0.05)
    assert folder.committed_steps(str(tmp_path)) == [40, 50, 60]


def _damage(path: Path, step: int) -> None:
    file = path / f"my-model-{step}.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
