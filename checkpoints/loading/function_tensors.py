"""Tensors as the body of a function names them: `node:output:index` for `node:index` of a graph.

Format: `tensorflow/core/framework/function.proto`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from checkpoints.loading.graph_view import attribute

Definitions: TypeAlias = Callable[[str], OpDef | None]


def graph_tensor(text: str, body: Mapping[str, NodeDef], definition_of: Definitions) -> str:
    """`node:index`, as a graph names a tensor, of `node:output:index`, as a function names it.

    Args:
      text: the function's; an argument or what is not understood stays as it is.
      body: the function's nodes by name.
      definition_of: the definition of an operation, None where there is none.
    """
    name, _, rest = text.partition(":")
    output, _, index = rest.partition(":")
    definition = definition_of(body[name].op) if name in body else None
    if definition is None or not (index.isdecimal() and len(index) < 6):
        return text
    position = int(index)
    for arg, count in _counts(body[name], definition):
        if arg == output:
            return f"{name}:{position}"
        position += count
    return text


def _counts(node: NodeDef, definition: OpDef) -> Iterator[tuple[str, int]]:
    """How many tensors each named output of a node is."""
    for arg in definition.output_arg:
        if arg.number_attr:
            yield arg.name, attribute(node, arg.number_attr).i
        elif arg.type_list_attr:
            yield arg.name, len(attribute(node, arg.type_list_attr).list.type)
        else:
            yield arg.name, 1
