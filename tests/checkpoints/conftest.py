"""A small set of variables to save and restore."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from checkpoints.bundle import VariableSpec

Array = npt.NDArray[Any]


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
