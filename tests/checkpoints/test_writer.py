"""What a save leaves on the disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.restore import Restored, restore_newest
from checkpoints.retention import Retention
from checkpoints.tensor_bundle import VariableSpec
from checkpoints.writer import CheckpointWriter, RunRecord

Values = dict[str, npt.NDArray[Any]]
Specs = dict[str, VariableSpec]

RECORD = RunRecord(meta_graph=b"a meta graph", config={"seed": 3})


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
    assert found.config == {"seed": 3}
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
    assert (found.step, found.config) == (10, None)
    assert "has no manifest" in caplog.text


def test_a_damaged_checkpoint_can_be_saved_again(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    _save(tmp_path, specs, values, 9, 10)
    (tmp_path / "my-model-10.manifest").write_bytes(b"")
    _save(tmp_path, specs, values, 10)
    assert _restore(tmp_path, specs).step == 10


def test_a_failed_save_leaves_the_one_before_it(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    """A folder in the place of the new .meta: it cannot be written."""
    _save(tmp_path, specs, values, 10)
    (tmp_path / "my-model-20.meta").mkdir()
    (tmp_path / "my-model-20.meta" / "file").touch()
    with pytest.raises(CheckpointError, match="could not save"):
        _save(tmp_path, specs, values, 20)
    assert _restore(tmp_path, specs).step == 10
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-10")


def test_the_next_save_goes_on_after_a_failed_one(
    tmp_path: Path, specs: Specs, values: Values
) -> None:
    blocked = tmp_path / "my-model-20.meta"
    blocked.mkdir()
    (blocked / "file").touch()
    _save(tmp_path, specs, values, 20, 30)
    assert _restore(tmp_path, specs).step == 30
