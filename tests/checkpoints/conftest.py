"""A small set of variables to save and restore."""

from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints.bundle import VariableSpec
from checkpoints.folder import Retention
from checkpoints.lock import FolderLock
from checkpoints.reader import Restored, restore_newest
from checkpoints.writer import CheckpointWriter, RunRecord

Array = npt.NDArray[Any]
RECORD = RunRecord(b"a meta graph", config={"seed": 3}, environment={"tensorflow": "2.21.0"})


def values_at(step: int) -> dict[str, Array]:
    """Three variables of different ranks and dtypes, after so many updates."""
    return {
        "layer/w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layer/b": np.array([step, -step], np.float32),
        "global_step": np.array(step, np.int64),
    }


SPECS = {name: VariableSpec(value.shape, value.dtype.name) for name, value in values_at(0).items()}


def save(path: object, accuracies: dict[int, float | None], stays: Retention) -> None:
    """Saves checkpoints of these steps, each with its test accuracy, as one process does."""
    with CheckpointWriter(str(path), SPECS, RECORD, stays, FolderLock(str(path))) as writer:
        for step, accuracy in accuracies.items():
            writer.save(step, values_at(step), accuracy)


def restore(path: object) -> Restored:
    """What a run would go on from: the newest good checkpoint, whose values are those saved."""
    found = restore_newest(str(path), SPECS)
    assert found is not None
    expected = {name: value.tobytes() for name, value in values_at(found.step).items()}
    assert {name: value.tobytes() for name, value in found.values.items()} == expected
    return found
