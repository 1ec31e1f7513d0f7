"""The nodes of a function written out in the place of its call.

Format: `tensorflow/core/framework/function.proto`.
"""

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.function_tensors import graph_tensor
from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.op_definitions import op_definitions
from tools.freezing.nodes import make_identity, remake, waits, waits_for_inputs


def write_out(graph: GraphDef, call: NodeDef, function: FunctionDef) -> None:
    """Adds the nodes of a function to a graph, and makes its call pass on their results.

    Args:
      graph: changed in place.
      call: a node of it, whose inputs are the arguments; it keeps its name and its outputs.
      function: one that `can_write_out`.
    """
    scope, taken = f"{call.name}/{function.signature.name}", {node.name for node in graph.node}
    while any(f"{scope}/{node.name}" in taken for node in function.node_def):
        scope += "_"
    inlined = _Inlined(graph, call, function, scope)
    results = [inlined.outer(function.ret[arg.name]) for arg in function.signature.output_arg]
    ends = [f"^{scope}/{name}" for name in function.control_ret.values()]
    wait = list(dict.fromkeys([*waits_for_inputs(call), *ends]))
    for node in function.node_def:
        inlined.add(node)
    types = list(attribute(call, "Tout").list.type)
    remake(call, "NoOp" if not types else "IdentityN", [*results, *wait], {})
    if len(types) == 1:
        make_identity(call, results[0], types[0])
    elif types:
        call.attr["T"].list.type.extend(types)


def can_write_out(call: NodeDef, function: FunctionDef) -> bool:
    """Whether a function takes what its call gives, and leaves no attribute to its caller."""
    signature = function.signature
    values = (value for node in function.node_def for value in node.attr.values())
    return bool(
        len(signature.input_arg) == len(data_inputs(call))
        and all(result.name in function.ret for result in signature.output_arg)
        and not signature.attr
        and not any(value.placeholder for value in values)
    )


class _Inlined:
    """A function's nodes on their way into a graph."""

    def __init__(self, graph: GraphDef, call: NodeDef, function: FunctionDef, scope: str) -> None:
        self._graph = graph
        self._scope = scope
        self._body = {node.name: node for node in function.node_def}
        arguments = [argument.name for argument in function.signature.input_arg]
        self._arguments = dict(zip(arguments, data_inputs(call), strict=True))
        self._definitions = {
            **op_definitions(graph),
            **{f.signature.name: f.signature for f in graph.library.function},
        }
        self._first = waits_for_inputs(call)

    def outer(self, text: str) -> str:
        """What an input of the function is called in the graph."""
        if text in self._arguments:
            return str(self._arguments[text])
        return f"{self._scope}/{graph_tensor(text, self._body, self._definitions.get)}"

    def add(self, node: NodeDef) -> None:
        """Adds a node; where it takes nothing, it waits for what the call waits for."""
        added = self._graph.node.add()
        added.CopyFrom(node)
        added.name = f"{self._scope}/{node.name}"
        inputs = [self.outer(text) for text in data_inputs(node)]
        wait = [f"^{self._scope}/{text[1:]}" for text in waits(node)]
        del added.input[:]
        added.input.extend([*inputs, *(wait if inputs or wait else self._first)])
