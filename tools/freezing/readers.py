"""Operations that read a variable by its handle become ones that take its value.

Operations: `tensorflow/core/ops/resource_variable_ops.cc`, `array_ops.cc`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import attribute, data_inputs
from tools.freezing.bodies import Body
from tools.freezing.nodes import make_constant, make_identity, remake, waits, waits_for_inputs

_INT32 = tf.int32.as_datatype_enum
_OUTPUT = "output"  # Of whatever an operation becomes here, in a function.


def replace_reader(node: NodeDef, body: Body, dtype: int) -> bool:
    """Makes a node that reads by a handle take the value in its place.

    Args:
      node: of `body`, changed in place; its first input is a value by now.
      body: changed where it names the output of `node`.
      dtype: the number of the value's dtype.

    Returns:
      False where the operation is another; the node then stays as it is.
    """
    if node.op not in _READERS:
        return False
    output, replace = _READERS[node.op]
    replace(node, body, dtype)
    if output != _OUTPUT:
        body.rename_output(node.name, output, _OUTPUT)
    return True


def _read(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    make_identity(node, data_inputs(node)[0], dtype)


def _gather(node: NodeDef, body: Body, dtype: int) -> None:
    """Rows by their numbers; it batches where its handle is read in batches, along axis 0."""
    values, indices = data_inputs(node)
    batched = attribute(node, "batch_dims").i
    types = {"Tparams": dtype, "Tindices": attribute(node, "Tindices").type}
    axis = body.add(f"{node.name}/axis")
    # In a loop of the old kind a constant has to wait for something of it; functions have none.
    wait = [] if body.is_function else [f"^{indices.partition(':')[0]}"]
    make_constant(axis, np.asarray(batched, np.int32), _INT32, wait)
    text = f"{axis.name}:{_OUTPUT}:0" if body.is_function else axis.name
    remake(node, "GatherV2", [values, indices, text, *waits(node)], {**types, "Taxis": _INT32})
    node.attr["batch_dims"].i = batched


def _gather_nd(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    types = {"Tparams": dtype, "Tindices": attribute(node, "Tindices").type}
    remake(node, "GatherNd", node.input, types)


def _shape(node: NodeDef, body: Body, dtype: int) -> None:
    del body
    out_type = attribute(node, "out_type").type or _INT32
    remake(node, "Shape", node.input, {"T": dtype, "out_type": out_type})


def _is_initialized(node: NodeDef, body: Body, dtype: int) -> None:
    del dtype
    wait = waits(node) if body.is_function else waits_for_inputs(node)
    make_constant(node, np.asarray(True), tf.bool.as_datatype_enum, wait)


# Operation -> what its output is called in a function, and what becomes of it.
_READERS: Mapping[str, tuple[str, Callable[[NodeDef, Body, int], None]]] = {
    "ReadVariableOp": ("value", _read),
    "ResourceGather": (_OUTPUT, _gather),
    "ResourceGatherNd": (_OUTPUT, _gather_nd),
    "VarIsInitializedOp": ("is_initialized", _is_initialized),
    "VariableShape": (_OUTPUT, _shape),
}
