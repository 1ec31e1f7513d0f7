"""Telling random graphs; the warning itself is tested on whole predictions."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from metagraph.session import RANDOM_OPS, warn_if_random

# They have a seed too, and draw nothing: a generator or queue as such, data, dropout on GPUs only.
_NOT_DRAWING = (
    "AnonymousRandomSeedGenerator",
    "CudnnRNN",
    "DeleteRandomSeedGenerator",
    "ExperimentalRandomDataset",
    "RandomDataset",
    "RandomShuffleQueue",
)


def _draws(name: str) -> bool:
    definition = op_def_registry.get(name)
    if definition is None or not definition.is_stateful or name.startswith(_NOT_DRAWING):
        return False
    seeded = any(attribute.name == "seed" for attribute in definition.attr)
    by_state = name.startswith(("StatefulStandard", "StatefulTruncated", "StatefulUniform"))
    return seeded or by_state or name in ("RngReadAndSkip", "StatefulRandomBinomial")


def test_every_operation_that_draws_is_known() -> None:
    names = [name for name in dir(tf.raw_ops) if name[0].isupper()]
    assert {name for name in names if _draws(name)} == RANDOM_OPS


def test_without_a_random_node_nothing_runs_twice() -> None:
    def fail(*_: Any) -> Any:
        pytest.fail("ran again")

    graph: Any = type("Graph", (), {"run": staticmethod(fail), "nodes_by_op": {"Add": ["b"]}})
    warn_if_random(graph, [np.zeros(1)], [np.zeros(1)])
