"""Refuses operations of a stranger's graph that do more than compute; limits the time it takes.

The table `operations.txt` says what each operation may do. To learn dtypes and shapes a copy is
imported first, in which operations that are not pure have no kernel (`disarm`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from absl import logging
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from errors import CheckpointError, first_few
from metagraph.meta import LOOPS


def op_definitions(graph_def: GraphDef) -> Mapping[str, OpDef]:
    """What this TensorFlow says of the operations of a graph; what it lacks is left out."""
    functions = graph_def.library.function
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in functions))
    ops = {node.op for node in nodes} - {function.signature.name for function in functions}
    flat = GraphDef(node=[NodeDef(name=op, op=op) for op in sorted(ops)])
    with tf.Graph().as_default() as graph:  # It refuses to work outside one.
        exported = tf.compat.v1.train.export_meta_graph(graph_def=flat, graph=graph)
    return {op.name: op for op in exported.meta_info_def.stripped_op_list.op}


def _read_table() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    operations: list[str] = []
    table = Path(__file__).with_name("operations.txt")
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            operations = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            operations += line.split()
    return sections


_WAIT = "can wait for ever"
_COMPUTES = "computes: "
OPERATIONS: Mapping[str, Sequence[str]] = _read_table()
_TABLE = {op: section for section, ops in OPERATIONS.items() for op in ops}
PURE = frozenset(op for op, section in _TABLE.items() if section.startswith(_COMPUTES))
# Written as the end of "..., which can read or write files".
RISKS: Mapping[str, str] = {op: risk for op, risk in _TABLE.items() if op not in PURE}
# Those that draw from a generator whose state goes on from run to run, a fixed seed or not.
RANDOM_OPS = frozenset([*OPERATIONS["computes: random numbers"], "FixedUnigramCandidateSampler"])
# Sections of what only depends on its inputs; and what does so of the others.
_OF_INPUTS = re.compile(
    r"computes: (mathematics|arrays|layers|linear|quantization|images|strings|parsing|sparse|const)"
)
_TO_READ = re.compile(
    r"Variable(V2)?|VarHandleOp|ReadVariableOp|ResourceGather(Nd)?|(Empty)?Tensor(Array|List).*"
    r"|Stack.*|Hash.*|LookupTable(Find|Size).*|Stateless.*"
)

# Other streams are `file://` and a path.
_STREAMS = re.compile(rb"stdout|stderr|log\((info|warning|error)\)")
_UNKNOWN = "is not on the list of operations of this TensorFlow"
_NAMED = 3  # Offenders that a message names; a hostile graph may have thousands.
_LONGEST = 200  # Characters of a name in a message.


class Offender(NamedTuple):
    """A node of a graph, or of its library function of that name, that may do more than compute."""

    node: NodeDef
    function: str
    risk: str

    def __str__(self) -> str:
        place = f" of function {_shown(self.function)}" if self.function else ""
        return (
            f"node {_shown(self.node.name)}{place} runs the operation {_shown(self.node.op)}, "
            f"which {self.risk}"
        )


def check_operations(
    graph_def: GraphDef, where: str, trust_graph: bool, way_out: str = "Feed {}"
) -> None:
    """Raises CheckpointError, or warns with trust, unless all that will be run only computes.

    The way out is what whoever asked can do with a tensor that needs none of it.
    """
    found = list(offenders(graph_def))
    if not found:
        return
    named = "; ".join(str(offender) for offender in found[:_NAMED])
    rest = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    if not trust_graph:
        raise CheckpointError(
            f"{where}: {named}{rest}. {way_out.format(_in_place_of(found[0], graph_def))}, or, if "
            "you trust the file, run it all the same with --trust_graph"
        )
    logging.warning("%s: %s%s; run all the same, as --trust_graph asks", where, named, rest)


def offenders(graph_def: GraphDef) -> Iterator[Offender]:
    """The nodes of a graph and of all its library functions that may do more than compute.

    A function that is called and is not in the library, TensorFlow itself refuses to run.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    bodies = [("", graph_def.node)]
    bodies += [(f.signature.name, f.node_def) for f in graph_def.library.function]
    for function, nodes in bodies:
        for node in (node for node in nodes if node.op not in PURE):
            risk = RISKS.get(node.op)
            if risk is None:
                # Old graphs call a function by an operation of its name.
                if node.op not in functions:
                    yield Offender(node, function, _UNKNOWN)
            elif not only_prints(node):
                yield Offender(node, function, risk)


def disarm(graph_def: GraphDef) -> None:
    """Takes the kernels from what `check_operations` refuses; its dtypes and shapes stay.

    An import alone runs operations: shape inference evaluates whatever follows from constants, and
    a stateless operation may write a file (DebugIdentity).
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
        name, inputs = offender.node.name, {text for node in graph_def.node for text in node.input}
        others = [text for text in inputs if text.startswith(f"{name}:")]
        taken = f"{name}:0" if name in inputs or not others else min(others)
        return f"{_shown(taken)} or {follows}"
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


_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "RemoteCall", "SymbolicGradient"})
_CALLS |= {"If", "StatelessIf", "Case", "StatelessCase"}


def takes_its_time(operations: Iterable[str]) -> bool:
    """Whether these operations may run without an end: there are loops, or functions with some."""
    return not (LOOPS | _CALLS).isdisjoint(operations)


def follows_from_inputs(operations: Iterable[str]) -> bool:
    """Whether the results of these operations follow from what a run is fed alone.

    They draw no random numbers, and leave no value for the next run. What is not in the table is
    taken for the name of a function, whose operations are among them.
    """
    return all(
        _OF_INPUTS.match(_TABLE[op]) or _TO_READ.fullmatch(op) for op in operations if op in _TABLE
    )


def only_prints(node: NodeDef) -> bool:
    """Whether a node is a PrintV2 that does not print into a file; its default is stderr."""
    stream = node.attr["output_stream"] if "output_stream" in node.attr else AttrValue(s=b"stderr")
    # A placeholder, filled in by whoever calls the function, is no s.
    known = stream.HasField("s") and _STREAMS.fullmatch(stream.s) is not None
    return node.op == "PrintV2" and known


GRACE_SECONDS = 5.0  # After the limit, for a session to end by itself.
_SHOWN = 3
_YEAR_SECONDS = 365 * 24 * 3600
_MORE_TIME = "give it more (0 is no limit)"
RUN = "one run"  # Of the fetched tensors, for some rows.


@dataclass(frozen=True)
class TimeLimit:
    """What each thing may take that TensorFlow is made to do with a graph: its import, a run.

    A session cancels queues and loops in time. Nothing but the end of the process stops a kernel
    that computes, or an import, which folds constants. That is what `end_after` is for: it ends the
    process with a line, so many seconds from now; 0 is for never, as is to have none.
    """

    seconds: float = 60.0  # 0 is no limit; nor is more than a year, for which no clock is made.
    end_after: Callable[[float, str], None] | None = None

    @property
    def milliseconds(self) -> int:
        """As `RunOptions.timeout_in_ms` takes it: 0 is no limit, and all below 1 counts as 1."""
        return max(1, round(self.seconds * 1000)) if self._is_limit else 0

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Has the process ended where `what`, such as `RUN`, takes too long; not to be nested."""
        if self.end_after is None or not self._is_limit:
            yield
            return
        line = f"{self._took(what)}, and does not end: {_MORE_TIME}"
        self.end_after(self.seconds + GRACE_SECONDS, line)
        try:
            yield
        finally:
            self.end_after(0.0, "")

    def overrun(self, what: str, graph: tf.Graph) -> str:
        """One line on why a run of `graph` may have taken too long: what waits for others."""
        took = self._took(what)
        # A reader waits for a queue of file names.
        waiting = [
            op
            for op in graph.get_operations()
            if RISKS.get(op.type) == _WAIT or op.type.startswith("ReaderRead")
        ]
        if not waiting:
            return f"{took}: {_MORE_TIME}"
        described = first_few([f"{op.name} ({op.type})" for op in waiting], _SHOWN)
        outputs = [output for op in waiting for output in op.outputs]
        taken = [output for output in outputs if output.consumers()] or outputs
        tensors = [output.name for output in taken][:_SHOWN]
        in_place = f"{', '.join(tensors)} in its place" if tensors else "what comes after it"
        return f"{took}: it waits for {described}, which nobody fills; feed {in_place}"

    @property
    def _is_limit(self) -> bool:
        return 0 < self.seconds <= _YEAR_SECONDS

    def _took(self, what: str) -> str:
        return f"{what} took longer than --time_limit={self.seconds:g} seconds"
