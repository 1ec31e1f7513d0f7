"""Telling random graphs; the warning itself is tested on whole predictions."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import op_def_registry

from prediction.randomness import RANDOM_OPS, random_nodes, warn_if_random

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


def test_nodes_of_functions_count() -> None:
    graph_def = GraphDef()
    graph_def.node.add(name="a", op="RandomUniform")
    graph_def.node.add(name="b", op="Add")
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="c", op="RandomShuffle")
    assert random_nodes(graph_def) == ("a", "f/c")


def test_without_a_random_node_nothing_runs_twice() -> None:
    def fail(*_: Any) -> Any:
        pytest.fail("ran again")

    graph: Any = type("Graph", (), {"run": staticmethod(fail)})
    warn_if_random(graph, [], [np.zeros(1)], [np.zeros(1)])
