"""A graph with the calls of its functions written out, and TensorFlow's static shapes of it.

In the SavedModels of TensorFlow 2 all of a model stands in functions. Each call is replaced by the
nodes of its function: of a loop, condition and body once, as for its first turn; of a choice, each
branch. The result has the same static shapes, and is no graph that computes the same.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from errors import CheckpointError
from metagraph.graph import attribute_of, data_inputs, graph_tensor, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile
from metagraph.safety import op_definitions

MAX_NODES = 300_000  # Of all functions as often as they are called; calls of calls multiply.
_MAX_DEPTH = 100
# Operations that call functions: the attributes with their names, and how many inputs go before
# the arguments. The results are those of the last function.
_CALLS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
    "If": (("else_branch", "then_branch"), 1),
    "StatelessIf": (("else_branch", "then_branch"), 1),
    "While": (("cond", "body"), 0),
    "StatelessWhile": (("cond", "body"), 0),
}
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_SERVED = frozenset({"IteratorGetNext", "IteratorV2", "Iterator", "OneShotIterator"})


def full_name(text: str) -> str:
    """`node:0` of `node`."""
    return text if ":" in text else f"{text}:0"


class Origin(NamedTuple):
    """Where a node of the flat graph comes from.

    Attributes:
      root: the node of the graph itself that it is, or whose call leads to it.
      function: the function that it is in; empty for the graph itself.
      node: its name there.
      path: its name for people, in the scopes of the graph and of the functions on the way to it.
    """

    root: str
    function: str
    node: str
    path: str


class FlatGraph:
    """A graph without calls; control inputs are left out.

    Attributes:
      graph_def: its nodes; those of the graph itself have the same names in it.
      origins: of each node, and of each call, by name.
    """

    def __init__(self, graph_def: GraphDef, inline: bool = True) -> None:
        """Writes out the calls of a graph, which stays as it is; without `inline`, only copies it.

        Raises:
          CheckpointError: its calls are too deep or too many, or do not fit their functions.
        """
        self.graph_def = GraphDef(versions=graph_def.versions, library=graph_def.library)
        self.origins = dict[str, Origin]()
        self._library = {f.signature.name: f for f in graph_def.library.function if inline}
        self._bodies = {n: {x.name: x for x in f.node_def} for n, f in self._library.items()}
        self._definitions = op_definitions(graph_def)
        self._same = dict[str, str]()  # A result of a call, or an argument -> the tensor it is.
        self._left = MAX_NODES
        for node in graph_def.node:
            self._add(node, node.name, data_inputs(node), Origin(node.name, "", *[node.name] * 2))
        for node in self.graph_def.node:
            node.input[:] = [self.source(text) for text in node.input]

    def source(self, text: str) -> str:
        """The tensor, `node:index`, that one is: calls and arguments are seen through."""
        text, seen = full_name(text), set[str]()
        while text in self._same and text not in seen:
            seen.add(text)
            text = self._same[text]
        return text

    def _add(
        self, node: NodeDef, name: str, inputs: Sequence[str], origin: Origin, depth: int = 0
    ) -> None:
        """Adds a node, or in the place of a call what it calls."""
        self.origins[name] = origin
        keys, skipped = _CALLS.get(node.op, ((), 0))
        functions = {key: str(attribute_of(node, key).func.name) for key in keys}
        if not set(functions.values()) <= self._library.keys():
            functions = {}
        if not functions:
            added = self.graph_def.node.add()
            added.CopyFrom(node)
            added.name = name
            added.input[:] = inputs
            added.attr.pop("_class", None)  # It may name a call, or a node of a function.
        for role, function in functions.items():
            place = f"{name}/>{role}/"
            self._write_out(function, inputs[skipped:], place, origin, depth + 1)
            returned = self._library[function].ret
            for index, result in enumerate(self._library[function].signature.output_arg):
                inner = self._flat(returned.get(result.name, ""), function)
                self._same[f"{name}:{index}"] = full_name(place + inner)

    def _write_out(
        self, name: str, arguments: Sequence[str], place: str, caller: Origin, depth: int
    ) -> None:
        function = self._library[name]
        self._left -= len(function.node_def) + 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise CheckpointError(
                f"the calls of functions unfold to more than {MAX_NODES} nodes, or go more than "
                f"{_MAX_DEPTH} deep"
            )
        parameters = [parameter.name for parameter in function.signature.input_arg]
        if len(parameters) != len(arguments):
            raise CheckpointError(
                f"{caller.node} calls the function {name} with {len(arguments)} arguments, which "
                f"takes {len(parameters)}"
            )
        for parameter, argument in zip(parameters, arguments, strict=True):
            self._same[f"{place}{parameter}:0"] = full_name(argument)
        scope = posixpath.dirname(caller.path)
        for node in function.node_def:
            inputs = [place + self._flat(text, name) for text in data_inputs(node)]
            origin = Origin(caller.root, name, node.name, posixpath.join(scope, node.name))
            self._add(node, place + node.name, inputs, origin, depth)

    def _flat(self, text: str, function: str) -> str:
        return graph_tensor(text, self._bodies[function], self._definitions.get)


@dataclass(frozen=True, eq=False)
class StaticGraph:
    """A flat graph, and the same imported and disarmed; None where TensorFlow cannot import it.

    The problem is why not, or why it is but a part of the graph; empty where all is well.
    """

    flat: FlatGraph
    graph: tf.Graph | None
    problem: str

    @cached_property
    def paths(self) -> frozenset[str]:
        """What `Origin.path` the nodes have, for `layer_of`."""
        return frozenset(origin.path for origin in self.flat.origins.values())

    def tensor(self, text: str) -> tuple[str, list[int | None] | None] | None:
        """The dtype's name and the sizes of `node` or `node:index`; None where not known."""
        if self.graph is None:
            return None
        try:
            tensor = self.graph.get_tensor_by_name(self.flat.source(text))
        except (KeyError, ValueError):
            return None
        # A damaged file may have a size below -1.
        sizes = None if tensor.shape.rank is None else tensor.shape.as_list()
        whole = sizes and [s if s is not None and s >= 0 else None for s in sizes]
        return tensor.dtype.base_dtype.name, whole


def static_graph(
    meta: MetaGraphFile, outputs: Sequence[str], batch_size: int | None
) -> StaticGraph:
    """Imports as much of a graph as this TensorFlow can: the whole, or what some outputs need.

    Inputs whose first size is not known get the batch size, where there is one and the graph
    allows.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    problem = ""
    whole = [f"{name}:0" for name in meta.nodes]
    for names in (whole, outputs) if outputs else (whole,):
        graph_def = sub_graph(meta, names).graph_def
        for size in dict.fromkeys([batch_size, None]):
            try:
                flat = FlatGraph(graph_def)
                if size is not None:
                    _set_batch_size(flat.graph_def, size)
                return StaticGraph(flat, import_disarmed(meta, flat.graph_def), problem)
            except CheckpointError as error:
                problem = problem or str(error)
    return StaticGraph(FlatGraph(graph_def, inline=False), None, problem)


def _set_batch_size(graph_def: GraphDef, size: int) -> None:
    """Gives what is fed, or comes out of an iterator, a first size where it is not known."""
    for node in graph_def.node:
        shapes = []
        if node.op in _INPUTS:
            shapes = [
                attribute_of(node, "shape").shape,
                *attribute_of(node, "_output_shapes").list.shape,
            ]
        elif node.op in _SERVED:
            shapes = list(attribute_of(node, "output_shapes").list.shape)
        for shape in shapes:
            if shape.dim and shape.dim[0].size == -1:
                shape.dim[0].size = size
