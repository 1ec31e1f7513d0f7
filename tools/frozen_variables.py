"""Variables of a graph become constants; TensorFlow's own converter follows their handles.

The converter asks a session for the values and copies them several times. Here it is given empty
ones, and those of the checkpoint are put in the finished graph, where each is in memory once.

Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `state_ops.cc`, `control_flow_ops.cc`.
"""

from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.reader import Array
from errors import ToolError, reason
from metagraph.graph import attribute_of, data_inputs
from metagraph.meta import MetaGraphFile, node_of
from metagraph.variables import REF_VARIABLES, RESOURCE_VARIABLE, Variable, read_values
from tools.command import quiet

_MOST_BYTES = 2**31 - 1  # Of one protobuf message.
_BY_VALUE = {  # What passes a reference on -> the same for a value.
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefIdentity": "Identity",
    "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
    "RefSwitch": "Switch",
}
_LOOPS = frozenset({"StatelessWhile", "While"})
_READ = "/Read/ReadVariableOp"


def _empty(variable: Variable) -> Array:
    """What stands for a variable's value; as it is no scalar, nothing is folded by it."""
    return np.empty([0], variable.dtype.as_numpy_dtype)


def replace_variables(
    graph: GraphDef, variables: Mapping[str, Variable], wanted: Collection[str], path: str
) -> GraphDef:
    """Replaces the variables of a part of a file's graph by constants without values.

    What changes a variable stays as it is: it may be gone once the graph is folded, and cannot be
    imported otherwise. `graph` is changed in place; `wanted` are full names of what is kept. Raises
    ToolError where handles of variables go where the converter does not follow them.
    """
    for node in graph.node:
        node.op = _BY_VALUE.get(node.op, node.op)
        if node.op in REF_VARIABLES:
            make_constant(node, _empty(variables[node.name]))
    if any(node.op == RESOURCE_VARIABLE for node in graph.node):
        return _convert_handles(graph, variables, wanted, path)
    return graph


def _convert_handles(
    graph: GraphDef, variables: Mapping[str, Variable], wanted: Collection[str], path: str
) -> GraphDef:
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        _read_before_lookups(nodes, in_function=nodes is not graph.node)
        for node in nodes:
            if node.op in _LOOPS:  # The shapes that it would have are those of the empty values.
                node.attr["output_shapes"].CopyFrom(AttrValue(list=AttrValue.ListValue()))
    # In the place of the session that the converter reads the variables from.
    values = SimpleNamespace(
        run=lambda names: [_empty(variables[node_of(name).removesuffix(_READ)]) for name in names]
    )
    waiting = {node.name: waits(node) for node in graph.node if node.op == "ReadVariableOp"}
    try:
        with quiet():  # It warns of its age.
            frozen: GraphDef = tf.compat.v1.graph_util.convert_variables_to_constants(
                values, graph, sorted({node_of(name) for name in wanted})
            )
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ToolError(
            f"{path} cannot be frozen: TensorFlow's converter does not follow the handles of its "
            f"variables ({reason(error)}); name others with --fetch"
        ) from error
    for node in frozen.node:
        node.input.extend(waiting.get(node.name, ()))  # The converter has dropped them.
    return frozen


def _read_before_lookups(nodes: Any, *, in_function: bool) -> None:
    """Makes lookups of rows read the value first: the converter knows them in few places only."""
    for node in [node for node in nodes if node.op in ("ResourceGather", "ResourceGatherNd")]:
        if attribute_of(node, "batch_dims").i:
            continue  # This it refuses.
        handle, indices = data_inputs(node)
        dtype = attribute_of(node, "dtype").type
        types = {"Tparams": dtype, "Tindices": attribute_of(node, "Tindices").type}
        read = nodes.add(name=f"{node.name}{_READ}", op="ReadVariableOp", input=[handle])
        read.attr["dtype"].type = dtype
        value = f"{read.name}:value:0" if in_function else read.name
        remake(node, node.op.removeprefix("Resource"), [value, indices, *waits(node)], types)


def fill_constants(graph: GraphDef, meta: MetaGraphFile, variables: Mapping[str, Variable]) -> None:
    """Gives the constants their values; each value is freed once it is in the graph.

    Some of `variables` may be gone from the graph. Raises CheckpointError where one is missing or
    damaged, ToolError where the graph would be larger than a protobuf message can be.
    """
    nodes = [node for node in graph.node if node.name in variables]
    values = read_values(meta, [variables[node.name] for node in nodes])
    size = graph.ByteSize() + sum(value.nbytes for value in values.values())
    if size > _MOST_BYTES:
        raise ToolError(
            f"{meta.path} with its variables takes {size} bytes, and a file of one graph holds at "
            f"most {_MOST_BYTES}: give --fetch fewer"
        )
    for node in nodes:
        make_constant(node, values.pop(node.name))


# Nodes of a graph as data, made or remade by hand.
# Format: `tensorflow/core/framework/node_def.proto`, and `tensor.proto` beside it.


def remake(node: NodeDef, op: str, inputs: Sequence[str], types: Mapping[str, int]) -> None:
    """Makes another operation of a node, which keeps its name alone.

    Its only attributes are `types`: name -> the number of a `tf.DType`.
    """
    name, inputs = node.name, list(inputs)
    node.Clear()
    node.name, node.op = name, op
    node.input.extend(inputs)
    for key, number in types.items():
        node.attr[key].type = number


def waits(node: NodeDef) -> list[str]:
    """The inputs of a node that are only waited for, `^name`."""
    return [text for text in node.input if text.startswith("^")]


def make_constant(node: NodeDef, value: Array, wait: Sequence[str] = ()) -> None:
    """Makes a node a `Const`, with a single copy of a large value.

    Inside a loop of the old kind it has to `wait` for something of it, `^name`.
    """
    dtype = tf.as_dtype(value.dtype)
    remake(node, "Const", wait, {"dtype": dtype.as_datatype_enum})
    tensor = node.attr["value"].tensor
    if dtype == tf.string:
        tensor.CopyFrom(tf.make_tensor_proto(value, dtype, value.shape))
        return
    tensor.dtype = dtype.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = np.ascontiguousarray(value).tobytes()


def make_placeholder(node: NodeDef, dtype: tf.DType, shape: Sequence[int | None] | None) -> None:
    """Makes a node a `Placeholder`; None for sizes, or a rank, that are not known."""
    remake(node, "Placeholder", (), {"dtype": dtype.as_datatype_enum})
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
