"""What a save leaves on the disk."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints import file_io, folder
from checkpoints.bundle import VariableSpec
from checkpoints.naming import Retention
from checkpoints.reader import Restored, restore_newest
from checkpoints.writer import CheckpointWriter, RunRecord
from errors import CheckpointError, NotFiniteError

Values = dict[str, npt.NDArray[Any]]
Specs = dict[str, VariableSpec]

RECORD = RunRecord(b"a meta graph", config={"seed": 3}, environment={"tensorflow": "2.21.0"})


def _writer(path: Path, specs: Specs, keep: int = 4) -> CheckpointWriter:
    return CheckpointWriter(str(path), specs, RECORD, Retention(keep))


def _save(path: Path, specs: Specs, values: Values, *steps: int, keep: int = 4) -> None:
    with _writer(path, specs, keep) as writer:
        for step in steps:
            writer.save(step, values | {"global_step": np.array(step, np.int64)})


def _restore(path: Path, specs: Specs) -> Restored:
    found = restore_newest(str(path), specs)
    assert found is not None
    return found


def test_a_checkpoint_is_whole(tmp_path: Path, specs: Specs, values: Values) -> None:
    _save(tmp_path, specs, values, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint",
        "my-model-10.data-00000-of-00001",
        "my-model-10.index",
        "my-model-10.manifest",
        "my-model-10.meta",
    ]
    assert (tmp_path / "my-model-10.meta").read_bytes() == b"a meta graph"
    assert json.loads((tmp_path / "my-model-10.manifest").read_bytes())["config"] == {"seed": 3}
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-10")


def test_values_may_change_while_they_are_written(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """A save has its copies, as the training's own memory changes with the next step."""
    saved = values | {"global_step": np.array(10, np.int64)}
    live = {name: np.array(value) for name, value in saved.items()}
    with _writer(tmp_path, specs) as writer:
        writer.save(10, live)
        for value in live.values():
            value.fill(3)
    found = _restore(tmp_path, specs).values
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in saved.items()}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_saved(
    tmp_path: Path, specs: Specs, values: Values, bad: float
) -> None:
    """The next save says so, or the end."""
    broken = values | {"layer/b": np.array([1, bad], np.float32)}
    with _writer(tmp_path, specs) as writer:
        writer.save(10, values | {"global_step": np.array(10, np.int64)})
        writer.save(20, broken)
        with pytest.raises(NotFiniteError, match="layer/b is not finite after step 20"):
            writer.save(30, values)
    with pytest.raises(NotFiniteError, match="step 40"), _writer(tmp_path, specs) as writer:
        writer.save(40, broken)
    assert folder.usable_steps(str(tmp_path)) == [10]


def test_retention_holds_across_writers(tmp_path: Path, specs: Specs, values: Values) -> None:
    for first in (1, 4, 7):
        _save(tmp_path, specs, values, first, first + 1, first + 2, keep=2)
    assert sorted(p.name for p in tmp_path.glob("*.manifest")) == [
        "my-model-8.manifest",
        "my-model-9.manifest",
    ]
    assert len(list(tmp_path.iterdir())) == 2 * 4 + 1
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert len(state.all_model_checkpoint_paths) == 2


def test_the_newest_is_restored(tmp_path: Path, specs: Specs, values: Values) -> None:
    _save(tmp_path, specs, values, 9, 10)
    found = _restore(tmp_path, specs)
    assert (found.step, found.prefix) == (10, str(tmp_path / "my-model-10"))
    assert found.manifest is not None
    assert found.manifest.config == {"seed": 3}
    assert found.values["layer/w"].tobytes() == values["layer/w"].tobytes()


def test_nothing_is_restored_from_an_empty_or_absent_folder(tmp_path: Path, specs: Specs) -> None:
    assert restore_newest(str(tmp_path), specs) is None
    assert restore_newest(str(tmp_path / "absent"), specs) is None


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index", ".meta", ".manifest"])
def test_damage_is_stepped_over_and_said(
    tmp_path: Path, specs: Specs, values: Values, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, specs, values, 9, 10)
    path = tmp_path / f"my-model-10{suffix}"
    path.write_bytes(path.read_bytes()[:-3])
    assert _restore(tmp_path, specs).step == 9
    assert f"my-model-10{suffix} is damaged" in caplog.text


def test_damage_to_all_is_an_error(tmp_path: Path, specs: Specs, values: Values) -> None:
    _save(tmp_path, specs, values, 9, 10)
    for path in tmp_path.glob("*.index"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .*my-model-10\.index is"):
        restore_newest(str(tmp_path), specs)


def test_a_checkpoint_without_manifest_is_accepted_and_that_is_said(
    tmp_path: Path, specs: Specs, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, specs, values, 10)
    (tmp_path / "my-model-10.manifest").unlink()
    found = _restore(tmp_path, specs)
    assert (found.step, found.manifest) == (10, None)
    assert "has no manifest" in caplog.text


def test_a_damaged_checkpoint_can_be_saved_again(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, 9, 10)
    (tmp_path / "my-model-10.manifest").write_bytes(b"")
    _save(tmp_path, specs, values, 10)
    assert _restore(tmp_path, specs).step == 10


@pytest.fixture
def step_20_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses the .meta file of step 20."""
    write_file = file_io.write_file

    def refuse(path: str, content: bytes) -> None:
        if path.endswith("my-model-20.meta"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write_file(path, content)

    monkeypatch.setattr(file_io, "write_file", refuse)


@pytest.mark.usefixtures("step_20_fails")
def test_a_failed_save_leaves_the_one_before_it(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, 10)
    with pytest.raises(CheckpointError, match="could not save"):
        _save(tmp_path, specs, values, 20)
    assert _restore(tmp_path, specs).step == 10
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-10")


@pytest.mark.usefixtures("step_20_fails")
def test_the_next_save_goes_on_after_a_failed_one(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, 20, 30)
    assert _restore(tmp_path, specs).step == 30


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_of_several_damaged_ones_the_newest_good_one_is_found(
    tmp_path: Path, specs: Specs, values: Values, damaged: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage of another kind to each of the newest; a good older one is left at any depth."""
    steps = [10, 20, 30, 40]
    _save(tmp_path, specs, values, *steps)
    for step, suffix in zip(steps[-damaged:], (".index", ".meta", ".manifest"), strict=False):
        (tmp_path / f"my-model-{step}{suffix}").write_bytes(b"damage")
    assert _restore(tmp_path, specs).step == steps[-damaged - 1]
    assert caplog.text.count("stepping over") == damaged


def test_a_damaged_newer_one_takes_no_good_ones_place(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """Step 40 is damaged and two are kept: 20 and 30 stay until 40 has been written again."""
    _save(tmp_path, specs, values, 20, 30, 40, keep=3)
    (tmp_path / "my-model-40.index").write_bytes(b"damage")
    _save(tmp_path, specs, values, 31, keep=2)
    assert folder.committed_steps(str(tmp_path)) == [30, 31, 40]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-31")
    _save(tmp_path, specs, values, 40, keep=2)
    assert folder.committed_steps(str(tmp_path)) == [31, 40]
    assert _restore(tmp_path, specs).step == 40


@pytest.mark.parametrize("content", [None, b"", b"\xff\xff", b'model_checkpoint_path: "gone-7"\n'])
def test_a_lost_or_wrong_state_file_is_written_anew(
    tmp_path: Path,
    specs: Specs,
    values: Values,
    content: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    _save(tmp_path, specs, values, 9, 10)
    state = tmp_path / "checkpoint"
    before = state.read_bytes()
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    assert _restore(tmp_path, specs).step == 10  # It is not what a restart goes by.
    folder.at_start(str(tmp_path), 10, Retention(4))
    assert state.read_bytes() == before
    assert "rewrote the state file" in caplog.text


def test_a_name_that_is_not_its_step_is_stepped_over(
    tmp_path: Path, specs: Specs, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger's files under another number."""
    _save(tmp_path, specs, values, 9)
    _save(tmp_path, specs, values, 10)
    (tmp_path / "my-model-10.manifest").unlink()
    for path in sorted(tmp_path.glob("my-model-10.*")):
        path.rename(str(path).replace("-10.", "-99."))
    assert _restore(tmp_path, specs).step == 9
    assert "my-model-99: it is of step 10" in caplog.text
