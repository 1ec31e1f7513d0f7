"""A graph as data, looked into from an operation back to what feeds it, through functions too.

A saver or a table's initializer may stand in the graph itself or, in the SavedModels of
TensorFlow 2, in a function that the graph calls with the variables and tables as arguments.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.meta_graph_file import MetaGraphFile

_PASS_ON = frozenset({"Identity", "RefIdentity", "Reshape", "Snapshot"})
_MAX_STEPS = 64  # From an operation to what feeds it: a hostile chain may be endless.
_MAX_CALLS = 1000  # A handful is usual; calls of calls multiply in a hostile library.


@dataclass(frozen=True, eq=False)
class View:
    """A graph, or the body of a function at one place where it is called.

    Attributes:
      nodes: by name.
      root: the node of the graph that leads into this body; None for the graph itself.
      caller: where the body is called; None for the graph itself.
      arguments: the names of the function's arguments, each with the caller's tensor.
    """

    nodes: Mapping[str, NodeDef]
    root: str | None = None
    caller: "View | None" = None
    arguments: Mapping[str, str] = field(default_factory=dict)

    def root_of(self, node: NodeDef) -> str:
        """The node of the graph that `node` runs in: itself, or the call that leads to it."""
        return self.root if self.root is not None else node.name


class Output(NamedTuple):
    """An output of a node, and how it is reached.

    Attributes:
      view: where the node is.
      node: the node.
      position: of the output among those of the node.
      reshaped: whether its value is given another shape on the way.
    """

    view: View
    node: NodeDef
    position: int
    reshaped: bool

    @property
    def name(self) -> str | None:
        """The tensor's name in the graph; None inside a function."""
        return f"{self.node.name}:{self.position}" if self.view.caller is None else None


def data_inputs(node: NodeDef) -> list[str]:
    """A node's inputs without those that are only waited for."""
    return [text for text in node.input if not text.startswith("^")]


def attribute(node: NodeDef, name: str) -> AttrValue:
    """An attribute of a node, an empty one where it has none of that name.

    To index `node.attr` itself would add one to the file's own node.
    """
    return node.attr[name] if name in node.attr else AttrValue()


def source(view: View, text: str) -> Output | None:
    """What a node's input gives in the end: copies, reshapes and arguments are seen through.

    Args:
      view: where the node is.
      text: its input as it stands there: `op`, `op:1`, in a function `op:output:1`.

    Returns:
      None where the graph ends before there is anything.
    """
    reshaped = False
    for _ in range(_MAX_STEPS):
        name, _, rest = text.partition(":")
        if view.caller is not None and name in view.arguments:
            view, text = view.caller, view.arguments[name]
            continue
        node = view.nodes.get(name)
        if node is None:
            return None
        inputs = data_inputs(node)
        if node.op not in _PASS_ON or not inputs:
            number = rest.rpartition(":")[2] or "0"
            known = number.isdecimal() and len(number) < 6
            return Output(view, node, int(number), reshaped) if known else None
        reshaped = reshaped or node.op == "Reshape"
        text = inputs[0]
    return None


def views(meta: MetaGraphFile, wanted: Collection[str]) -> Iterator[View]:
    """The graph, and the body of each function that it calls and that has one of some operations.

    Args:
      meta: the file.
      wanted: operations; a function that neither has one of them nor calls one that has is left
        out.
    """
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    worthwhile = _worthwhile(library, wanted)
    waiting = [View(meta.nodes)]
    for _ in range(_MAX_CALLS):
        if not waiting:
            return
        view = waiting.pop(0)
        yield view
        if worthwhile:
            waiting += _bodies(view, {name: library[name] for name in worthwhile})


def _bodies(view: View, library: Mapping[str, FunctionDef]) -> Iterator[View]:
    """The functions that the nodes of `view` call, a call at a time."""
    for node in view.nodes.values():
        for name in called(node, library):
            function = library[name]
            arguments = [argument.name for argument in function.signature.input_arg]
            inputs = data_inputs(node)
            if len(arguments) == len(inputs):
                yield View(
                    nodes={body.name: body for body in function.node_def},
                    root=view.root_of(node),
                    caller=view,
                    arguments=dict(zip(arguments, inputs, strict=True)),
                )


def _worthwhile(library: Mapping[str, FunctionDef], wanted: Collection[str]) -> set[str]:
    """The functions that have one of the wanted operations, in themselves or by a call."""
    callers: dict[str, list[str]] = {}
    waiting = []
    for name, function in library.items():
        for node in function.node_def:
            if node.op in wanted:
                waiting.append(name)
            for other in called(node, library):
                callers.setdefault(other, []).append(name)
    found = set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += callers.get(name, [])
    return found


def called(node: NodeDef, library: Mapping[str, FunctionDef]) -> Iterator[str]:
    """The functions of `library` that a node names: by its op (the old form) or in an attribute."""
    if not library:
        return
    named = [node.op, *(name for value in node.attr.values() for name in _functions_in(value))]
    yield from (name for name in named if name in library)


def _functions_in(value: AttrValue) -> list[str]:
    return [value.func.name, *(function.name for function in value.list.func)]
