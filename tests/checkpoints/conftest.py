"""A small set of variables to save and restore."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from checkpoints.bundle import VariableSpec
from checkpoints.folder import Retention
from checkpoints.writer import CheckpointWriter, RunRecord

Array = npt.NDArray[Any]
RECORD = RunRecord(b"a meta graph", config={"seed": 3}, environment={"tensorflow": "2.21.0"})


@pytest.fixture
def values() -> dict[str, Array]:
    """Three variables of different ranks and dtypes."""
    return {
        "layer/w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layer/b": np.array([0.5, -1.5], np.float32),
        "global_step": np.array(7, np.int64),
    }


@pytest.fixture
def specs(values: dict[str, Array]) -> dict[str, VariableSpec]:
    """Their shapes and dtypes."""
    return {name: VariableSpec(value.shape, value.dtype.name) for name, value in values.items()}


class Save(Protocol):
    """Saves checkpoints of these steps, each with its test accuracy, as one process does."""

    def __call__(self, path: object, accuracies: dict[int, float | None], stays: Retention) -> None:
        """Raises what the writer does."""


@pytest.fixture
def save(values: dict[str, Array], specs: dict[str, VariableSpec]) -> Save:
    """See `Save`."""

    def run(path: object, accuracies: dict[int, float | None], stays: Retention) -> None:
        with CheckpointWriter(str(path), specs, RECORD, stays) as writer:
            for step, accuracy in accuracies.items():
                writer.save(step, values | {"global_step": np.array(step, np.int64)}, accuracy)

    return run
