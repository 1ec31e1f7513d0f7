"""Refuses what is no mere computation in a stranger's graph, before anything of it is imported."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.op_definitions import op_definitions
from checkpoints.loading.op_list import HARMLESS_ATTRIBUTE, HARMLESS_IF_EMPTY, RISKS
from checkpoints.loading.pure_ops import PURE

_UNKNOWN = "is not on the list of operations of this TensorFlow"
_NAMED = 3  # Offenders that a message names; a hostile graph may have thousands.
_LONGEST = 200  # Characters of a name in a message.


class Offender(NamedTuple):
    """A node that may do more than compute.

    Attributes:
      node: in the graph that was looked at, not a copy.
      function: the library function that it is in; empty for the graph itself.
      risk: what it can do, as in `which can read or write files`.
    """

    node: NodeDef
    function: str
    risk: str

    def __str__(self) -> str:
        place = f" of function {_shown(self.function)}" if self.function else ""
        return (
            f"node {_shown(self.node.name)}{place} runs the operation {_shown(self.node.op)}, "
            f"which {self.risk}"
        )


def check_operations(graph_def: GraphDef, where: str, trust_graph: bool) -> None:
    """Sees that a graph only computes, its library functions included.

    Args:
      graph_def: what is to be imported and run; a fed tensor's node is left out.
      where: the file it came from, for the message.
      trust_graph: only warn.

    Raises:
      CheckpointError: an operation may do more, or is unknown; the message names the first few.
    """
    found = list(offenders(graph_def))
    if not found:
        return
    named = "; ".join(str(offender) for offender in found[:_NAMED])
    rest = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    if not trust_graph:
        raise CheckpointError(
            f"{where}: {named}{rest}. Feed {_in_place_of(found[0], graph_def)}, or, if you trust "
            "the file, run it all the same with --trust_graph"
        )
    logging.warning("%s: %s%s; run all the same, as --trust_graph asks", where, named, rest)


def offenders(graph_def: GraphDef) -> Iterator[Offender]:
    """The nodes of a graph and of its library functions that may do more than compute.

    Every function of the library is looked at, whoever calls it. A function that is called and is
    not in the library, a gradient among them, cannot be run: TensorFlow itself refuses it.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    for node, risk in _risky(graph_def.node, functions):
        yield Offender(node, "", risk)
    for function in graph_def.library.function:
        for node, risk in _risky(function.node_def, functions):
            yield Offender(node, function.signature.name, risk)


def disarm(graph_def: GraphDef) -> None:
    """Takes the kernels from what `check_operations` refuses, to look at a graph without a run.

    An import alone runs operations: shape inference evaluates whatever follows from constants, and
    a stateless operation may well write a file (DebugIdentity). With a kernel label that no kernel
    has, an operation is imported, has its static dtypes and shapes, and can never run.
    """
    for offender in offenders(graph_def):
        offender.node.attr["_kernel"].s = b"refused"


def _in_place_of(offender: Offender, graph_def: GraphDef) -> str:
    """What can be fed so that an offender is not needed."""
    follows = "a tensor that follows it"
    if offender.function:
        return follows
    definitions = op_definitions(graph_def)
    without = {op for op, definition in definitions.items() if not definition.output_arg}
    if offender.node.op not in without:
        return f"{_shown(offender.node.name)}:0 or {follows}"
    waiting = _waiting(offender.node.name, graph_def, without)
    return follows if waiting is None else f"{_shown(waiting)}:0, which waits for it"


def _waiting(name: str, graph_def: GraphDef, without: Collection[str]) -> str | None:
    """The nearest node with an output that waits for a node of an operation without one."""
    waiting_for: dict[str, list[NodeDef]] = {}
    for node in graph_def.node:
        for text in node.input:
            if text.startswith("^"):
                waiting_for.setdefault(text[1:], []).append(node)
    names = [name]
    for reached in names:  # It grows as it goes.
        for node in waiting_for.pop(reached, []):
            if node.op not in without:
                return str(node.name)
            names.append(node.name)
    return None


def _shown(name: str) -> str:
    """A name out of a file that nothing has been checked of yet, fit for one line."""
    return name if name.isprintable() and len(name) <= _LONGEST else ascii(name[:_LONGEST])


def _risky(nodes: Iterable[NodeDef], functions: set[str]) -> Iterator[tuple[NodeDef, str]]:
    """The nodes of one body that are not harmless, each with what it can do."""
    suspects = [node for node in nodes if node.op not in PURE]
    if not suspects:
        return
    body = {node.name: node for node in nodes}
    for node in suspects:
        risk = RISKS.get(node.op)
        if risk is None:
            if node.op not in functions:  # Old graphs call a function by an operation of its name.
                yield node, _UNKNOWN
        elif not is_harmless(node, body):
            yield node, risk


def is_harmless(node: NodeDef, body: Mapping[str, NodeDef]) -> bool:
    """Whether a risky operation's attributes or inputs are such that it only computes."""
    if node.op in HARMLESS_ATTRIBUTE:
        name, pattern = HARMLESS_ATTRIBUTE[node.op]
        if name not in node.attr:
            return True
        value = node.attr[name]  # A placeholder, filled in by whoever calls the function, is no s.
        return value.HasField("s") and pattern.fullmatch(value.s) is not None
    if node.op in HARMLESS_IF_EMPTY:
        source = _input(node, HARMLESS_IF_EMPTY[node.op])
        return source in body and _is_empty_text(body[source])
    return False


def _input(node: NodeDef, index: int) -> str:
    """The node that an input comes from; empty where there is none."""
    return node.input[index].partition(":")[0] if index < len(node.input) else ""


def _is_empty_text(node: NodeDef) -> bool:
    if node.op != "Const" or "value" not in node.attr:
        return False
    tensor = node.attr["value"].tensor
    return list(tensor.string_val) == [b""] and not tensor.tensor_content
