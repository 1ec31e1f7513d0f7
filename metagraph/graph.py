"""A graph as data: looked into from an operation back to what feeds it, and cut to what is needed.

A saver or a table's initializer may stand in the graph itself or, in the SavedModels of
TensorFlow 2, in a function that the graph calls with the variables and tables as arguments.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING

from errors import CheckpointError
from metagraph.meta import INPUT_OPS, PLACEHOLDERS, MetaGraphFile, node_of, shape_sizes
from metagraph.safety import only_prints

_PASS_ON = frozenset({"Identity", "RefIdentity", "Reshape", "Snapshot"})  # Their first input.
_MAX_STEPS = 64  # From an operation to what feeds it: a hostile chain may be endless.
_MAX_CALLS = 1000  # A handful is usual; calls of calls multiply in a hostile library.


@dataclass(frozen=True, eq=False)
class View:
    """A graph, or the body of a function at one place where it is called, with nodes by name.

    Of a body there are `root`, the node of the graph that leads into it, `caller`, where it is
    called, and `arguments`, the names of the function's arguments, each with the caller's tensor.
    """

    nodes: Mapping[str, NodeDef]
    root: str | None = None
    caller: "View | None" = None
    arguments: Mapping[str, str] = field(default_factory=dict)

    def root_of(self, node: NodeDef) -> str:
        """The node of the graph that `node` runs in: itself, or the call that leads to it."""
        return self.root if self.root is not None else node.name


class Output(NamedTuple):
    """The output of this position of a node."""

    view: View
    node: NodeDef
    position: int

    @property
    def name(self) -> str | None:
        """The tensor's name in the graph; None inside a function."""
        return f"{self.node.name}:{self.position}" if self.view.caller is None else None


def data_inputs(node: NodeDef) -> list[str]:
    """A node's inputs without control inputs, which are only waited for."""
    return [text for text in node.input if not text.startswith("^")]


def attribute_of(node: NodeDef, name: str) -> AttrValue:
    """An attribute of a node, or an empty one: to index `node.attr` would add one to the file's."""
    return node.attr[name] if name in node.attr else AttrValue()


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


def source(view: View, text: str, passed: Collection[str] = _PASS_ON) -> Output | None:
    """What a node's input gives in the end: arguments and what is to be `passed` are seen through.

    It is `op`, `op:1`, or in a function `op:output:1`. None where the graph ends before.
    """
    for _ in range(_MAX_STEPS):
        name, _, rest = text.partition(":")
        if view.caller is not None and name in view.arguments:
            view, text = view.caller, view.arguments[name]
            continue
        node = view.nodes.get(name)
        if node is None:
            return None
        inputs = data_inputs(node)
        if node.op not in passed or not inputs:
            number = rest.rpartition(":")[2] or "0"
            known = number.isdecimal() and len(number) < 6
            return Output(view, node, int(number)) if known else None
        text = inputs[0]
    return None


def views(meta: MetaGraphFile, wanted: Collection[str]) -> Iterator[View]:
    """The graph, and the bodies of functions with a wanted operation, at each place of a call."""
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    worthwhile = _worthwhile(library, wanted)
    waiting = [View(meta.nodes)]
    for _ in range(_MAX_CALLS):
        if not waiting:
            return
        view = waiting.pop(0)
        yield view
        waiting += _bodies(view, worthwhile)


def _bodies(view: View, library: Mapping[str, FunctionDef]) -> Iterator[View]:
    for node in view.nodes.values():
        for function in (library[name] for name in called(node, library)):
            arguments = [argument.name for argument in function.signature.input_arg]
            inputs = data_inputs(node)
            if len(arguments) == len(inputs):
                yield View(
                    nodes={body.name: body for body in function.node_def},
                    root=view.root_of(node),
                    caller=view,
                    arguments=dict(zip(arguments, inputs, strict=True)),
                )


def _worthwhile(
    library: Mapping[str, FunctionDef], wanted: Collection[str]
) -> dict[str, FunctionDef]:
    """The functions that have one of the wanted operations, in themselves or by a call."""
    callers: dict[str, list[str]] = {}
    waiting = []
    for name, function in library.items():
        waiting += [name for node in function.node_def if node.op in wanted]
        for node in function.node_def:
            for other in called(node, library):
                callers.setdefault(other, []).append(name)
    return {name: library[name] for name in reached(waiting, lambda n: callers.get(n, []))}


def reached(starts: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    """Some names, and those that follow from them."""
    found, waiting = set[str](), list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += following(name)
    return found


def called(node: NodeDef, library: Mapping[str, FunctionDef]) -> Iterator[str]:
    """The functions of `library` that a node names: by its op (the old form) or in an attribute."""
    if not library:
        return
    named = [node.op]
    for value in node.attr.values():
        named += [value.func.name, *(function.name for function in value.list.func)]
    yield from (name for name in named if name in library)


def text_at(node: NodeDef, index: int) -> str | None:
    """The text at an index into the flattened value of a constant; None where there is none.

    A hostile shape costs no memory. Where there are fewer texts than the shape says, the last one
    fills the rest: `tensorflow/core/framework/tensor.proto`.
    """
    tensor = attribute_of(node, "value").tensor
    sizes, texts = [dim.size for dim in tensor.tensor_shape.dim], tensor.string_val
    if node.op != "Const" or tensor.dtype != DT_STRING or min(sizes, default=0) < 0:
        return None
    if not (0 < len(texts) <= math.prod(sizes) and 0 <= index < math.prod(sizes)):
        return None
    try:
        return str(texts[min(index, len(texts) - 1)].decode("utf-8"))
    except UnicodeDecodeError:
        return None


# What stands in the place of an operation that only prints, or only says where work is done.
#
# `Print` becomes `Identity`, and `PrintV2` `NoOp`: they would write bytes of a stranger, which a
# terminal obeys, between the lines of our own output. Old models are full of them. What gathers or
# hands out the work of one replica, as a TPU's graph has it, is seen through, and so is what one
# device sends to another: there is one here.

# Operation -> the attribute that has to be 1, where it does more for several.
_PLACES = dict.fromkeys(("_Retval", "XlaSharding", "Print"), "")
_PLACES |= dict.fromkeys(
    ("TPUReplicatedInput", "TPUPartitionedInput", "TPUPartitionedInputV2"), "N"
)
_PLACES |= dict.fromkeys(("TPUPartitionedOutput", "TPUPartitionedOutputV2"), "num_splits")
_PLACES |= {"TPUReplicatedOutput": "num_replicas", "NcclAllReduce": "num_devices"}
_SAYS_PLACES = "TPUReplicateMetadata"
_RECEIVES = frozenset({"_Recv", "_HostRecv"})
_REPLACED = _RECEIVES.union(_PLACES, {_SAYS_PLACES, "PrintV2"})


def simpler(node: NodeDef, sent: Mapping[bytes, str] = MappingProxyType({})) -> NodeDef:
    """The node itself, or what stands in its place; `sent` is that of its file."""
    if node.op not in _REPLACED:
        return node
    one, name = _PLACES.get(node.op), attribute_of(node, "tensor_name").s
    plain = NodeDef(name=node.name)
    if node.op in _RECEIVES and name in sent:
        kept, inputs = "tensor_type", [sent[name]]
    elif one is not None and (not one or attribute_of(node, one).i == 1):
        kept, inputs = "T", data_inputs(node)[:1]
    elif node.op == _SAYS_PLACES or only_prints(node):
        remake(plain, "NoOp", waits(node), {})
        return plain
    else:
        return node
    remake(plain, "Identity", [*inputs, *waits(node)], {"T": attribute_of(node, kept).type})
    return plain


@dataclass(frozen=True, eq=False)
class SubGraph:
    """A part of the graph of a file."""

    meta: MetaGraphFile
    names: frozenset[str]  # The nodes that are needed.
    feeds: frozenset[str]  # Those of the fed tensors that they take; it no longer computes them.
    fed_nodes: frozenset[str]  # Of all fed tensors.

    @cached_property
    def unfed(self) -> tuple[str, ...]:
        """The placeholders without a default that still have to be fed, in the file's order."""
        found = {name for name in self.names if self.meta.nodes[name].op in PLACEHOLDERS}
        return tuple(f"{name}:0" for name in self.meta.nodes if name in found) if found else ()

    @cached_property
    def graph_def(self) -> GraphDef:
        """The nodes and the functions they need, in the file's order; on no device, and silent."""
        graph_def = GraphDef(versions=self.meta.proto.graph_def.versions)
        for name, node in self.meta.nodes.items():
            if name in self.names:
                copied = graph_def.node.add()
                _copy_cleaned(simpler(node, self.meta.sent), copied, self.fed_nodes)
                say_shapes(copied, known_shapes(self.meta, node))
        _add_functions(self.meta, graph_def)
        return graph_def


def sub_graph(
    meta: MetaGraphFile, fetches: Collection[str], feeds: Collection[str] = ()
) -> SubGraph:
    """Keeps what `fetches` are computed from, control inputs included; both are full tensor names.

    A fed tensor ends the walk: it is left in the inputs of its consumers, and its node is dropped
    unless another of its outputs is needed. As a fed node does not run, nothing waits for it.
    Raises CheckpointError where a node's input does not exist.
    """
    fed, fed_nodes = frozenset(feeds), frozenset(node_of(name) for name in feeds)
    taken = set[str]()

    def inputs(node: str) -> Iterator[str]:
        for text in simpler(meta.nodes[node], meta.sent).input:
            name = node_of(text.removeprefix("^"))
            if name not in meta.nodes:
                raise CheckpointError(f"{meta.path} is damaged: {node} has an unknown input {text}")
            tensor = text if ":" in text else f"{text}:0"
            if tensor in fed:
                taken.add(tensor)
            elif not (text.startswith("^") and name in fed_nodes):
                yield name

    kept = reached([node_of(name) for name in fetches if name not in fed], inputs)
    return SubGraph(meta, frozenset(kept), frozenset(taken), fed_nodes)


def nodes_by_op(graph_def: GraphDef) -> dict[str, list[str]]:
    """The names of the nodes of each operation; of a library function's, as `function/node`."""
    found: dict[str, list[str]] = {}
    for node in graph_def.node:
        found.setdefault(node.op, []).append(node.name)
    for function in graph_def.library.function:
        for node in function.node_def:
            found.setdefault(node.op, []).append(f"{function.signature.name}/{node.name}")
    return found


def reachable(meta: MetaGraphFile, nodes: Iterable[str]) -> set[str]:
    """The nodes that some nodes stand on, they included; inputs that do not exist are left out."""

    def inputs(name: str) -> list[str]:
        known = (node_of(text.removeprefix("^")) for text in meta.nodes[name].input)
        return [source for source in known if source in meta.nodes]

    return reached([name for name in nodes if name in meta.nodes], inputs)


def _copy_cleaned(
    node: NodeDef, cleaned: NodeDef, fed_nodes: Collection[str] = frozenset()
) -> None:
    """Copies a node to the empty `cleaned`, without device, colocation and shapes."""
    cleaned.CopyFrom(node)
    cleaned.ClearField("device")
    cleaned.attr.pop("_class", None)
    cleaned.attr.pop("_output_shapes", None)
    if fed_nodes:
        kept = [n for n in cleaned.input if not (n.startswith("^") and n[1:] in fed_nodes)]
        cleaned.input[:] = kept


def _add_functions(meta: MetaGraphFile, graph_def: GraphDef) -> None:
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}

    def calls(nodes: Iterable[NodeDef]) -> list[str]:
        return [name for node in nodes for name in called(node, library)]

    needed = reached(calls(graph_def.node), lambda name: calls(library[name].node_def))
    for name, function in library.items():
        if name in needed:
            copy = graph_def.library.function.add()
            copy.CopyFrom(function)
            del copy.node_def[:]
            for node in function.node_def:
                _copy_cleaned(simpler(node), copy.node_def.add())


# Shapes of what is fed: what a placeholder or a queue says, or the graph's author had said when it
# was saved, and what is known beside that. TensorFlow tells the shapes of all else from these.

Shape: TypeAlias = tuple[int | None, ...] | None  # None where not even the rank is known.

_SOURCE_STARTS = ("IteratorGetNext", "OneShotIteratorGetNext")
_SOURCE_PARTS = ("Dequeue", "ParseExample", "ParseSingleExample", "ParseSequenceExample")
_FIRST_WITH_SCALARS = 24  # Of a producer before, a placeholder of shape [] may have any.


def is_source(node: NodeDef) -> bool:
    """Whether it hands out rows that come from elsewhere than a feed."""
    return node.op.startswith(_SOURCE_STARTS) or any(part in node.op for part in _SOURCE_PARTS)


def known_shapes(meta: MetaGraphFile, node: NodeDef) -> list[Shape]:
    """The shape of each output of a placeholder, a queue or an iterator.

    Empty of another node, and of a placeholder that says it all itself.
    """
    if node.op not in INPUT_OPS and not is_source(node):
        return []
    saved, own = attribute_of(node, "_output_shapes").list.shape, _own_shapes(meta, node)
    shapes = enumerate([*map(shape_sizes, saved)] or own)
    known = [joined(meta.shapes.get(f"{node.name}:{index}"), shape) for index, shape in shapes]
    return [] if node.op in INPUT_OPS and known == own else known


def say_shapes(node: NodeDef, shapes: Iterable[Shape]) -> None:
    """Has a node say what is known of its outputs, which TensorFlow joins with what it finds."""
    for shape in shapes:
        proto = node.attr["_output_shapes"].list.shape.add(unknown_rank=shape is None)
        for size in shape or ():
            proto.dim.add(size=-1 if size is None else size)


def open_placeholders(meta: MetaGraphFile) -> list[str]:
    """The placeholders of which nothing says how many dimensions they have."""
    found = (node for node in meta.nodes.values() if node.op in INPUT_OPS)
    return [n.name for n in found if not known_shapes(meta, n) and _own_shapes(meta, n) == [None]]


def joined(first: Shape, second: Shape) -> Shape:
    """What two that know something of a shape know of it together; the first where they differ."""
    if first is None or second is None or len(first) != len(second):
        return second if first is None else first
    return tuple(b if a is None else a for a, b in zip(first, second, strict=True))


def _own_shapes(meta: MetaGraphFile, node: NodeDef) -> list[Shape]:
    """What a placeholder says, or the queue of which something comes; empty of another node."""
    if node.op in INPUT_OPS:
        shape = shape_sizes(node.attr["shape"].shape) if "shape" in node.attr else None
        has_scalars = meta.proto.graph_def.versions.producer >= _FIRST_WITH_SCALARS
        return [shape if shape or has_scalars else None]
    queue = source(View(meta.nodes), data_inputs(node)[0]) if data_inputs(node) else None
    known = map(shape_sizes, attribute_of(queue.node, "shapes").list.shape if queue else ())
    rows = (None,) if node.op.startswith(("QueueDequeueMany", "QueueDequeueUpTo")) else ()
    shapes: list[Shape] = [None if sizes is None else (*rows, *sizes) for sizes in known]
    return shapes if len(shapes) == len(attribute_of(node, "component_types").list.type) else []
