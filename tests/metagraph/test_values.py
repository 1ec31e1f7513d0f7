"""What takes the place of fed tensors, and how variables are given their values."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph import values
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.session import load_inference_graph
from metagraph.values import Restoring, free_among, free_scope, placeholder, stand_in
from tests.prediction import stock

v1 = tf.compat.v1


def _meta(**ops: str) -> MetaGraphFile:
    """A file with a node of each operation, by name."""
    proto = MetaGraphDef()
    for name, op in ops.items():
        proto.graph_def.node.add(name=name, op=op)
    return MetaGraphFile("m.meta", "m", proto)


def test_a_scope_is_free_of_the_file_s_names() -> None:
    assert free_scope(_meta(fedora="Add"), "fed") == "fed"
    assert free_scope(_meta(fed="Add"), "fed") == "fed_1"
    assert free_among(["fedora", "a/fed"], "fed") == "fed"
    assert free_among(["Fed/x", "fed_1/y/z"], "fed") == "fed_2"


@pytest.mark.parametrize(
    ("node", "op", "expected"),
    [
        ("x", "Placeholder", "x"),
        ("a/x", "PlaceholderV2", "a/x"),
        ("y", "Add", "fed/value"),
        ("_x", "Placeholder", "fed/value"),
        ("x+y", "Placeholder", "fed/value"),
    ],
)
def test_a_placeholder_keeps_its_name_where_that_is_free(node: str, op: str, expected: str) -> None:
    with tf.Graph().as_default():
        tensor = placeholder(_meta(**{node: op}), f"{node}:0", tf.int32, [None, 2], "fed")
    assert (tensor.op.name, tensor.dtype, tensor.shape.as_list()) == (expected, tf.int32, [None, 2])


@pytest.mark.parametrize("dtype", [tf.resource, tf.variant])
def test_what_has_no_values_cannot_be_fed(dtype: tf.DType) -> None:
    with tf.Graph().as_default(), pytest.raises(CheckpointError, match=r"x:0 cannot be fed: it is"):
        placeholder(_meta(x="Placeholder"), "x:0", dtype, [], "fed")


@pytest.mark.parametrize("op", ["Variable", "VariableV2", "VarHandleOp"])
def test_a_variable_has_the_fed_value_in_each_run(op: str) -> None:
    """Consumers read it as they would the variable: by reference, or by handle."""
    meta = _meta(w=op)
    with tf.Graph().as_default(), v1.Session() as session:
        value = placeholder(meta, "w:0", tf.float32, [2], "fed")
        variable = stand_in(meta, "w:0", value)
        if op == "VarHandleOp":
            assert variable.dtype == tf.resource
            read = tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)
        else:
            assert variable.dtype.name == "float32_ref"
            read = tf.identity(variable)
        for fed in (np.array([1, 2], np.float32), np.array([3, 4], np.float32)):
            np.testing.assert_array_equal(session.run(read, {value: fed}), fed)


# Variables are given their values a part at a time, so that few are in memory twice.


_SIZES = (10, 300, 20, 30, 400)


@pytest.mark.parametrize(
    ("limit", "steps"), [(1 << 20, [5]), (4 * 320, [2, 2, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_each_variable_is_assigned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, steps: list[int]
) -> None:
    monkeypatch.setattr(values, "_BYTES_A_STEP", limit)
    with stock.checkpoint(tmp_path / "m"):
        for index, size in enumerate(_SIZES):
            value = np.full(size, index, np.float32)
            v1.get_variable(f"v{index}", initializer=value, use_resource=index % 2 == 0)
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    names = [f"v{index}" for index in range(len(_SIZES))]
    found = Restoring(meta, names, [], "restored").steps({})
    assert [len(step.targets) for step in found] == steps
    assert [len(step.feeds) for step in found] == steps
    for optimize in (True, False):
        with load_inference_graph(meta, [f"{n}:0" for n in names], optimize=optimize) as graph:
            for index, value in enumerate(graph.run()):
                np.testing.assert_array_equal(value, np.full(_SIZES[index], index, np.float32))
