"""Puts a placeholder, or a constant, in the place of each tensor at which a graph is cut."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.sub_graph import SubGraph
from checkpoints.loading.tensor_info import TensorInfo
from prediction.wiring import output_index
from tools.common.errors import ToolError
from tools.freezing.nodes import add_placeholder, make_constant

_SCOPE = "cut"


def add_cuts(
    graph: GraphDef, needed: SubGraph, inputs: Sequence[str], values: Mapping[str, bool | float]
) -> None:
    """Adds what the nodes of a cut graph take, under the names that they take it by.

    Args:
      graph: the graph of `needed`; nodes are added to it.
      needed: where the graph comes from, and where it is cut.
      inputs: the cuts that become placeholders, full tensor names.
      values: those that become constants.

    Raises:
      CheckpointError: a cut has no dtype that can be fed.
      ToolError: another output of a cut node is needed too, so that it has to stay.
    """
    by_node: dict[str, dict[int, TensorInfo]] = {}
    names = [name for name in [*inputs, *values] if node_of(name) not in needed.names]
    for name in {*inputs, *values}.difference(names):
        if name in needed.feeds:
            raise ToolError(
                f"the graph cannot be cut at {name} alone, as it needs other outputs of "
                f"{node_of(name)} too: name all that it takes of it with --inputs"
            )
    for info in describe_tensors(needed.meta, names) if names else ():
        by_node.setdefault(node_of(info.name), {})[output_index(info.name)] = info
    for node, outputs in by_node.items():
        if [*outputs] == [0]:
            _add(graph, node, outputs[0], values.get(outputs[0].name))
        else:
            _add_several(graph, node, outputs, needed)


def _add(graph: GraphDef, name: str, info: TensorInfo, value: bool | float | None) -> None:
    """Adds a node of one output."""
    if info.dtype in (tf.resource, tf.variant):
        raise ToolError(f"{info.name} cannot be an input: it is a {info.dtype.name}")
    if value is None:
        add_placeholder(graph, name, info.dtype, info.shape)
    else:
        array = np.asarray(value, info.dtype.as_numpy_dtype)
        make_constant(graph.node.add(name=name), array, info.dtype.as_datatype_enum)


def _add_several(
    graph: GraphDef, name: str, outputs: Mapping[int, TensorInfo], needed: SubGraph
) -> None:
    """Adds a node with as many outputs as are taken, each of which passes on a placeholder.

    An output before the last that nobody takes passes on what the last one does.
    """
    scope = f"{name}/{_SCOPE}"
    while any(node == scope or node.startswith(f"{scope}_") for node in needed.meta.nodes):
        scope += "_"
    last = max(outputs)
    for index, info in outputs.items():
        _add(graph, f"{scope}_{index}", info, None)
    passed = [index if index in outputs else last for index in range(last + 1)]
    node = graph.node.add(name=name, op="IdentityN")
    node.input.extend(f"{scope}_{index}" for index in passed)
    node.attr["T"].list.type.extend(outputs[index].dtype.as_datatype_enum for index in passed)
