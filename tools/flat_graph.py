"""One flat graph of a graph and the functions that it calls, to be looked at as a whole.

Also its static shapes, for a batch of a given size.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from errors import CheckpointError
from metagraph.graph import attribute_of, called, data_inputs, graph_tensor, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile
from metagraph.safety import op_definitions

# One flat graph of a graph and the functions that it calls, to be looked at as a whole.
#
# In the SavedModels of TensorFlow 2 all of a model stands in functions. Each call is replaced by
# the nodes of its function; of a loop, condition and body stand there once, as for its first turn;
# of a choice, each branch. The result has the same static shapes, and is no graph that computes the
# same.
#
# Format: `tensorflow/core/framework/function.proto`.

MAX_NODES = 300_000  # Beside those of the graph itself; calls of calls multiply.
_MAX_DEPTH = 100
_MERGES = frozenset({"Merge", "RefMerge"})
_NEXT = frozenset({"NextIteration", "RefNextIteration"})
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


class Origin(NamedTuple):
    """Where a node of the flat graph comes from.

    Attributes:
      root: the node of the graph itself that it is, or whose call leads to it.
      function: the function that it is in; empty for the graph itself.
      node: its name there.
      path: its name for people, in the scopes of the graph and of the functions on the way to it.
      glue: whether it only passes on an argument or a result.
    """

    root: str
    function: str
    node: str
    path: str
    glue: bool = False


class FlatGraph(NamedTuple):
    """A graph without calls.

    Attributes:
      graph_def: its nodes; those of the graph itself have the same names in it.
      origins: of each node, by name.
    """

    graph_def: GraphDef
    origins: Mapping[str, Origin]


class _Call(NamedTuple):
    """One call of a function that is still to be written out."""

    node: NodeDef
    function: NameAttrList
    arguments: Sequence[str]
    prefix: str
    origin: Origin
    depth: int


def flat_graph(graph_def: GraphDef, inline: bool = True) -> FlatGraph:
    """Writes out the calls of a graph.

    Args:
      graph_def: the graph; it stays as it is.
      inline: whether to do so; otherwise the graph is only copied.

    Raises:
      CheckpointError: its calls are too deep or too many, or do not fit their functions.
    """
    return _Flattening(graph_def, inline).result()


class _Flattening:
    """The work of `flat_graph`."""

    def __init__(self, graph_def: GraphDef, inline: bool) -> None:
        self._library = {f.signature.name: f for f in graph_def.library.function}
        self._bodies = {n: {x.name: x for x in f.node_def} for n, f in self._library.items()}
        inline = inline and bool(self._library)
        self._definitions = op_definitions(graph_def) if inline else {}
        self._inline = inline
        self._graph = GraphDef(versions=graph_def.versions)
        self._origins: dict[str, Origin] = {}
        self._left = MAX_NODES
        self._waiting: list[_Call] = []
        for node in graph_def.node:
            origin = Origin(node.name, "", node.name, node.name)
            self._add(node, origin, list(node.input), node.name, 0)

    def result(self) -> FlatGraph:
        while self._waiting:
            self._write_out(self._waiting.pop())
        _open_loops(self._graph)
        self._add_library()
        return FlatGraph(self._graph, self._origins)

    def _add_library(self) -> None:
        """Adds the functions that are named all the same, such as those of data sets."""
        added = set[str]()
        waiting = [name for node in self._graph.node for name in called(node, self._library)]
        while waiting:
            name = waiting.pop()
            if name not in added:
                added.add(name)
                function = self._library[name]
                self._graph.library.function.add().CopyFrom(function)
                waiting += [n for node in function.node_def for n in called(node, self._library)]

    def _add(
        self, node: NodeDef, origin: Origin, inputs: Sequence[str], name: str, depth: int
    ) -> None:
        """Adds a node, or, for one that calls, what gives its results."""
        calls = self._calls(node) if self._inline else []
        arguments = [text for text in inputs if not text.startswith("^")]
        self._origins[name] = origin._replace(glue=bool(calls))
        if not calls:
            added = self._graph.node.add()
            added.CopyFrom(node)
            added.name = name
            del added.input[:]
            added.input.extend(arguments if self._inline else inputs)
            return
        skipped = _CALLS[node.op][1] if node.op in _CALLS else 0
        results: list[str] = []
        for role, function in calls:
            prefix = f"{name}/>{role}/"
            call = _Call(node, function, arguments[skipped:], prefix, origin, depth + 1)
            self._waiting.append(call)
            results = self._results(call)
        types = self._types(calls[-1][1])
        op, value = ("IdentityN", AttrValue()) if types else ("NoOp", None)
        passed = self._graph.node.add(name=name, op=op, input=results if types else [])
        if value is not None:
            value.list.type.extend(types)
            passed.attr["T"].CopyFrom(value)

    def _calls(self, node: NodeDef) -> list[tuple[str, NameAttrList]]:
        """The functions that a node stands for, each with its role."""
        if node.op in self._library:  # The old form: the operation is the function's name.
            function = NameAttrList(name=node.op)
            for key, value in node.attr.items():
                function.attr[key].CopyFrom(value)
            return [("f", function)]
        keys = _CALLS.get(node.op, ((), 0))[0]
        found = [(key, attribute_of(node, key).func) for key in keys]
        return found if all(function.name in self._library for _, function in found) else []

    def _types(self, function: NameAttrList) -> list[int]:
        """The dtype numbers of a function's results."""
        results = self._library[function.name].signature.output_arg
        return [_type(result, function) for result in results]

    def _results(self, call: _Call) -> list[str]:
        """The tensors of the flat graph that a function returns."""
        function = self._library[call.function.name]
        body = self._bodies[call.function.name]
        return [
            self._flat(function.ret.get(result.name, ""), body, call.prefix)
            for result in function.signature.output_arg
        ]

    def _write_out(self, call: _Call) -> None:
        """Adds the arguments and the nodes of a called function."""
        function = self._library[call.function.name]
        parameters = function.signature.input_arg
        self._left -= len(function.node_def) + len(parameters)
        if self._left < 0 or call.depth > _MAX_DEPTH:
            raise CheckpointError(
                f"the calls of functions unfold to more than {MAX_NODES} nodes, or go more than "
                f"{_MAX_DEPTH} deep"
            )
        if len(parameters) != len(call.arguments):
            raise CheckpointError(
                f"{call.node.name} calls the function {call.function.name} with "
                f"{len(call.arguments)} arguments, which takes {len(parameters)}"
            )
        scope = posixpath.dirname(call.origin.path)
        for parameter, argument in zip(parameters, call.arguments, strict=True):
            name = call.prefix + parameter.name
            path = posixpath.join(scope, parameter.name)
            passed = self._graph.node.add(name=name, op="Identity", input=[argument])
            passed.attr["T"].type = _type(parameter, call.function)
            self._origins[name] = Origin(
                call.origin.root, call.function.name, parameter.name, path, glue=True
            )
        body = self._bodies[call.function.name]
        for node in function.node_def:
            self._add_of_body(node, body, call, scope)

    def _add_of_body(
        self, node: NodeDef, body: Mapping[str, NodeDef], call: _Call, scope: str
    ) -> None:
        filled = _filled(node, call.function.attr)
        path = posixpath.join(scope, node.name)
        origin = Origin(call.origin.root, call.function.name, node.name, path)
        inputs = [self._flat(text, body, call.prefix) for text in data_inputs(node)]
        self._add(filled, origin, inputs, call.prefix + node.name, call.depth)

    def _flat(self, text: str, body: Mapping[str, NodeDef], prefix: str) -> str:
        """A tensor's name in the flat graph, of `argument` or `node:output:index` in a function."""
        return prefix + graph_tensor(text, body, self._definition)

    def _definition(self, op: str) -> OpDef | None:
        return self._library[op].signature if op in self._library else self._definitions.get(op)


def _open_loops(graph_def: GraphDef) -> None:
    """Has loops of the old form give what comes in, not what comes round.

    TensorFlow tells no shape of what comes round when it imports a graph, nor of what comes in.
    """
    rounds = {node.name for node in graph_def.node if node.op in _NEXT}
    for node in graph_def.node if rounds else ():
        if node.op == "Enter":
            dtype = attribute_of(node, "T").type
            node.CopyFrom(NodeDef(name=node.name, op="Identity", input=node.input))
            node.attr["T"].type = dtype
        elif node.op in _MERGES:
            inside = [text for text in data_inputs(node) if text.partition(":")[0] not in rounds]
            for position, text in enumerate(node.input):
                if inside and text.partition(":")[0] in rounds:
                    node.input[position] = inside[0]


def _type(arg: OpDef.ArgDef, function: NameAttrList) -> int:
    """The dtype number of an argument or a result; the caller may choose it."""
    if arg.type or arg.type_attr not in function.attr:
        return int(arg.type)
    return int(function.attr[arg.type_attr].type)


def _filled(node: NodeDef, values: Mapping[str, AttrValue]) -> NodeDef:
    """A node of a function with the caller's values in place of attributes left open."""
    open_names = [key for key, value in node.attr.items() if value.placeholder in values]
    if not open_names:
        return node
    filled = NodeDef()
    filled.CopyFrom(node)
    for key in open_names:
        filled.attr[key].CopyFrom(values[node.attr[key].placeholder])
    return filled


# The static shapes of a whole graph, its functions written out, for a batch of a given size.

Sizes = tuple[int | None, ...]
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_SERVED = frozenset({"IteratorGetNext", "IteratorV2", "Iterator", "OneShotIterator"})


@dataclass(frozen=True, eq=False)
class StaticGraph:
    """A flat graph, imported and disarmed.

    Attributes:
      flat: its nodes.
      graph: the same in TensorFlow; None where that cannot import it.
      problem: why not, or why it is but a part of the graph; empty where all is well.
    """

    flat: FlatGraph
    graph: tf.Graph | None
    problem: str = ""

    @cached_property
    def paths(self) -> frozenset[str]:
        """What `Origin.path` the nodes have, for `layer_of`."""
        return frozenset(origin.path for origin in self.flat.origins.values())

    def tensor(self, text: str) -> tuple[tf.DType, Sizes | None] | None:
        """The dtype and the shape of `node` or `node:index`; None where it is not known."""
        if self.graph is None:
            return None
        try:
            tensor = self.graph.get_tensor_by_name(text if ":" in text else f"{text}:0")
        except (KeyError, ValueError):
            return None
        return tensor.dtype.base_dtype, sizes_of(tensor.shape)


def sizes_of(shape: tf.TensorShape) -> Sizes | None:
    """Sizes, None where one is not known; a damaged file may have one below -1."""
    if shape.rank is None:
        return None
    return tuple(s if s is not None and s >= 0 else None for s in shape.as_list())


def static_graph(
    meta: MetaGraphFile, outputs: Sequence[str], batch_size: int | None
) -> StaticGraph:
    """Imports as much of a graph as this TensorFlow can.

    That is the whole, or else what some outputs need. Inputs whose first size is not known get the
    batch size, where the graph allows.

    Args:
      meta: the file.
      outputs: full tensor names, of nodes that exist.
      batch_size: None to leave the sizes as they are.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    problem = ""
    whole = [f"{name}:0" for name in meta.nodes]
    for names in (whole, outputs) if outputs else (whole,):
        graph_def = sub_graph(meta, names).graph_def
        for size, inline in _attempts(graph_def, batch_size):
            try:
                flat = flat_graph(graph_def, inline)
                if size is not None:
                    _set_batch_size(flat.graph_def, size)
                return StaticGraph(flat, import_disarmed(meta, flat.graph_def), problem)
            except CheckpointError as error:
                problem = problem or str(error)
    return StaticGraph(flat_graph(graph_def, inline=False), None, problem)


def _attempts(graph_def: GraphDef, batch_size: int | None) -> list[tuple[int | None, bool]]:
    """The ways to import it, the best first: a batch size, and whether calls are written out."""
    sizes = [None] if batch_size is None else [batch_size, None]
    ways = [True, False] if graph_def.library.function else [True]
    return [(size, way) for way in ways for size in sizes]


def _set_batch_size(graph_def: GraphDef, size: int) -> None:
    """Gives what is fed, or comes out of an iterator, a first size where it is not known."""
    for node in graph_def.node:
        if node.op in _INPUTS:
            shapes = [
                attribute_of(node, "shape").shape,
                *attribute_of(node, "_output_shapes").list.shape,
            ]
        elif node.op in _SERVED:
            shapes = list(attribute_of(node, "output_shapes").list.shape)
        else:
            continue
        for shape in shapes:
            if shape.dim and shape.dim[0].size == -1:
                shape.dim[0].size = size
