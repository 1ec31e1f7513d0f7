"""Constants whose shape promises far more than they hold, given and refused."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_STRING

from errors import CheckpointError
from metagraph.importing import check_constant_sizes
from metagraph.meta import read_meta_graph
from metagraph.session import load_inference_graph
from tests.prediction import stock

v1 = tf.compat.v1


def _constant(*sizes: int, dtype: int = DT_FLOAT) -> NodeDef:
    node = NodeDef(name="c", op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = dtype
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    return node


@pytest.mark.parametrize("sizes", [[], [0, 1 << 62], [1 << 28], [3]])
def test_harmless_ones_pass(sizes: list[int]) -> None:
    check_constant_sizes(GraphDef(node=[_constant(*sizes)]), "m.meta")


def test_what_the_file_holds_is_not_counted() -> None:
    node = _constant(1 << 28)
    node.attr["value"].tensor.tensor_content = bytes(100)
    check_constant_sizes(GraphDef(node=[node, _constant(25)]), "m.meta")
    with pytest.raises(
        CheckpointError, match=r"m\.meta is refused: with the constant c of shape \[26\]"
    ):
        check_constant_sizes(GraphDef(node=[node, _constant(26)]), "m.meta")


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ([10**12], DT_FLOAT),
        ([1 << 62] * 4, DT_FLOAT),
        ([1 << 28], DT_STRING),
        ([1 << 28], 999),
    ],
)
def test_absurd_ones_are_refused(sizes: list[int], dtype: int) -> None:
    with pytest.raises(CheckpointError, match=r"the constant c of shape .* more than 1024 MiB"):
        check_constant_sizes(GraphDef(node=[_constant(*sizes, dtype=dtype)]), "m.meta")


@pytest.mark.parametrize("sizes", [[-1], [-(10**6), -(10**6)], [1] * 255])
def test_what_is_no_shape_is_refused(sizes: list[int]) -> None:
    with pytest.raises(CheckpointError, match="damaged: the constant c has no shape"):
        check_constant_sizes(GraphDef(node=[_constant(*sizes)]), "m.meta")


def test_those_of_functions_count_too() -> None:
    graph = GraphDef()
    graph.library.function.add().node_def.append(_constant(10**12))
    with pytest.raises(CheckpointError, match="the constant c"):
        check_constant_sizes(graph, "m.meta")


def test_they_are_refused_where_they_are_needed(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", initializer=np.float32(1), use_resource=False)
        x = v1.placeholder(tf.float32, [None], name="x")
        tf.identity(x * tf.constant(2.0), name="y")
    stock.edit_meta(
        tmp_path / "m.meta", lambda proto: proto.graph_def.node.append(_constant(10**12))
    )
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    load_inference_graph(meta, ["y:0"], ["x:0"]).close()
    with pytest.raises(CheckpointError, match="the constant c"):
        load_inference_graph(meta, ["c:0"])
