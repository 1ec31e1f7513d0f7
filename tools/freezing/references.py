"""What takes a variable of the old kind by reference takes its value.

Operations: `tensorflow/core/ops/control_flow_ops.cc`, `array_ops.cc`, `state_ops.cc`.
"""

from collections.abc import Collection

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.op_definitions import op_definitions
from tools.freezing.nodes import make_constant, waits_for_inputs

_BY_VALUE = {
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefIdentity": "Identity",
    "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
    "RefSwitch": "Switch",
}
_IS_INITIALIZED = "IsVariableInitialized"


def replace_references(graph: GraphDef, variables: Collection[str]) -> list[str]:
    """Makes what passes references on pass values on, in place.

    Args:
      graph: its variables of the old kind are constants, or fed, by now.
      variables: their nodes.

    Returns:
      The nodes that take a reference to change a variable; they stay as they are.
    """
    by_reference = set(variables)
    for node in graph.node:
        if node.op in _BY_VALUE:
            node.op = _BY_VALUE[node.op]
            by_reference.add(node.name)
        elif node.op == _IS_INITIALIZED:
            wait = waits_for_inputs(node)
            make_constant(node, np.asarray(True), tf.bool.as_datatype_enum, wait)
    changing = {
        name
        for name, definition in op_definitions(graph).items()
        if any(argument.is_ref for argument in definition.input_arg)
    }
    return [
        node.name
        for node in graph.node
        if node.op in changing and by_reference.intersection(map(node_of, data_inputs(node)))
    ]
