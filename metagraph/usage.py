"""What the nodes of a stranger's graph are for, where it does not say so itself.

Operations tell, and who takes what of whom: what serves a saver, a queue, a data set or the
training; what may be a prediction; which values switch to training, or set a dropout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from errors import first_few
from metagraph.description import TensorInfo, constant, format_shape
from metagraph.graph import SubGraph, is_source, reached
from metagraph.meta import INPUT_OPS, MetaGraphFile, node_of, output_index
from metagraph.safety import RANDOM_OPS
from metagraph.variables import VARIABLE_OPS

if TYPE_CHECKING:
    import tensorflow as tf

_SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_MAX_INPUTS = 64  # So many are told apart.


def dependence(
    meta: MetaGraphFile, inputs: Sequence[str], left_out: Collection[str]
) -> dict[str, set[str]]:
    """Node -> the inputs that its values depend on; on a tensor's shape alone, nothing depends.

    Of `inputs`, the first 64 count. The walk stops at nodes that are `left_out`; not in the result
    are they, and, if there are inputs, nodes that depend on none.
    """
    found = {name: set[str]() for name in meta.nodes if not inputs and name not in left_out}
    for tensor in inputs[:_MAX_INPUTS]:
        source = node_of(tensor)
        found.setdefault(source, set()).add(tensor)
        takers = meta.takers.get(source, ())
        waiting = [taker for taker in takers if tensor in meta.tensors_taken(taker, source)]
        while waiting:
            name = waiting.pop()
            if name in left_out or tensor in found.get(name, ()):
                continue
            found.setdefault(name, set()).add(tensor)
            if meta.nodes[name].op not in _SHAPE_OPS:
                waiting += meta.takers.get(name, ())
    return found


# Which nodes of a graph serve a saver, a queue, a data set or the training, and no prediction.

_SAVER_OPS = frozenset(
    {"Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2"}
    | {"ShardedFilename", "ShardedFilespec", "MergeV2Checkpoints"}
)
_FILLED_STARTS = (
    *("Assign", "Apply", "ResourceApply", "SparseApply", "ResourceSparseApply"),
    *("Scatter", "ResourceScatter", "InitializeTable", "LookupTableImport"),
)
_FILLED_PARTS = ("Enqueue", "Dataset", "Iterator")
_GRADIENT = re.compile(r"(^|/)gradients")  # A scope of tf.gradients.


def plumbing(meta: MetaGraphFile) -> set[str]:
    """What is plumbing by its operation or scope, what only fills it, and what only looks on.

    A loss that goes to a summary or a gradient is a result all the same, and so is a head that goes
    only to a metric's variable. A placeholder that goes only there is none.
    """
    found = _filled(meta)
    found |= {n.name for n in meta.nodes.values() if "Summary" in n.op or _GRADIENT.search(n.name)}
    taken = {n.name for n in meta.nodes.values() if n.op in INPUT_OPS} & meta.takers.keys()
    return found | {name for name in taken if found.issuperset(meta.takers[name])}


def _filled(meta: MetaGraphFile) -> set[str]:
    """What keeps values or hands them to others than its takers, and what goes nowhere else."""
    savers = {_scope_of(node) for node in meta.nodes.values() if node.op in _SAVER_OPS} - {""}
    filled = {node_of(meta.proto.saver_def.filename_tensor_name)} & meta.nodes.keys()
    filled |= {
        node.name
        for node in meta.nodes.values()
        if node.op in _SAVER_OPS
        or _scope_of(node) in savers
        or node.op.startswith(_FILLED_STARTS)
        or (any(part in node.op for part in _FILLED_PARTS) and not is_source(node))
    }
    untold = {name: len(names) for name, names in meta.takers.items()}
    waiting = list(filled)
    while waiting:
        for name in meta.givers(waiting.pop()):
            untold[name] -= 1
            if not untold[name] and name not in filled and meta.nodes[name].op not in _HEADS:
                filled.add(name)
                waiting.append(name)
    return filled


def _scope_of(node: NodeDef) -> str:
    return str(node.name).rpartition("/")[0]


# Which nodes may be predictions: usual heads such as a softmax, and the ends of the graph.
#
# Nothing goes on from an end alone: whatever takes it takes another input too, as a loss takes the
# labels. Labels are the inputs that neither a layer of weights stands on nor a head.

_HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK", "TopKV2"})
_LAYER_STARTS = ("MatMul", "BatchMatMul", "SparseMatMul", "Conv", "DepthwiseConv", "FusedBatchNorm")
COPIES = frozenset({"Identity", "StopGradient", "Snapshot"})
_NO_RESULTS = frozenset(
    {"NoOp", "Const", "Assert", "PrintV2", "ReadVariableOp"} | _SHAPE_OPS | VARIABLE_OPS | INPUT_OPS
)
_REDUCTIONS = frozenset({"Mean", "Sum", "AddN", "L2Loss"})
_SUMMED = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv", "DivNoNan", "Identity"})
_MEASURE = re.compile("loss|entropy|accuracy|metric|error")
_MAX_COPIES = 32  # In a row.
_MAX_SUMMED = 6  # Operations that make one loss of several.


def likely_outputs(meta: MetaGraphFile, needs: Mapping[str, set[str]]) -> list[str]:
    """The nodes that may be predictions: heads, other ends of the graph, then measures.

    Heads are in the file's order, of the others the last goes first. A copy stands before what it
    is a copy of. What needs more inputs than the first kind that there is, as a loss needs the
    labels, is left out. `needs` is the `dependence` without plumbing.
    """
    features = _features(meta, needs)
    heads, results, measures = list[str](), list[str](), list[str]()
    for name in _ends(meta, needs):
        root = _chain(meta, name)[-1]
        op = meta.nodes[root].op
        is_taken = any(taker in needs for taker in meta.takers.get(name, ()))
        meets_labels = is_taken and not features.issuperset(needs[name])
        is_measure = _MEASURE.search(f"{name} {root}".lower()) or _is_reduced(meta, needs, root)
        if meets_labels or is_measure:
            measures.append(name)
        else:
            (heads if op in _HEADS else results).append(name)
    given = set[str]().union(*(needs[name] for name in heads or results or measures))
    found = [x for x in (*heads, *reversed(results), *reversed(measures)) if needs[x] <= given]
    return [*dict.fromkeys(copy for name in found for copy in _chain(meta, name)[:2])]


def _features(meta: MetaGraphFile, needs: Mapping[str, Collection[str]]) -> set[str]:
    """The inputs that layers of weights stand on; all where there is none.

    A product of two values, as in a metric, is no layer of weights.
    """
    layers = _layers(meta, needs)
    weighted = [x for x in layers if not needs.keys() >= {*meta.givers(x)}]
    return set[str]().union(*(needs[name] for name in weighted or needs))


def _layers(meta: MetaGraphFile, names: Iterable[str]) -> list[str]:
    return [name for name in names if meta.nodes[name].op.startswith(_LAYER_STARTS)]


def _ends(meta: MetaGraphFile, needs: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The nodes that may be outputs, in the file's order; of copies of one, the last."""
    taken_by_layers = [giver for name in _layers(meta, needs) for giver in meta.givers(name)]
    under_layers = reached(taken_by_layers, meta.givers)
    for name in meta.nodes:
        takers = [taker for taker in meta.takers.get(name, ()) if taker in needs]
        if name not in needs or name in under_layers:
            continue
        if any(meta.nodes[taker].op in COPIES for taker in takers):
            continue
        op = meta.nodes[_chain(meta, name)[-1]].op
        goes_on = any(
            needs[taker] == needs[name] and meta.nodes[taker].op not in _NO_RESULTS
            for taker in takers
        )
        if op in _HEADS or not (goes_on or op in _NO_RESULTS):
            yield name


def _chain(meta: MetaGraphFile, name: str) -> list[str]:
    """A node, what it is a copy of, and so on to what is no copy."""
    chain = [name]
    while meta.nodes[chain[-1]].op in COPIES and meta.taken[chain[-1]]:
        source = meta.taken[chain[-1]][0]
        if output_index(source) or node_of(source) in chain or len(chain) == _MAX_COPIES:
            break  # Only first outputs are offered, and a damaged graph may have cycles.
        chain.append(node_of(source))
    return chain


def _is_reduced(
    meta: MetaGraphFile, needs: Collection[str], name: str, most: int = _MAX_SUMMED
) -> bool:
    """Whether all that a node takes of the inputs has been reduced: a loss, a sum of losses."""
    op = meta.nodes[name].op
    if op not in _SUMMED or not most:
        return op in _REDUCTIONS
    sources = [giver for giver in meta.givers(name) if giver in needs]
    return bool(sources) and all(_is_reduced(meta, needs, x, most - 1) for x in sources)


# What tells a graph that it is being trained. A value of one bool is a switch. One of one number is
# a dropout's if random numbers are compared with it, or if its name says so.

_INVERTED = re.compile(r"infer|eval|test|predict|freeze", re.IGNORECASE)
_TRAINING = re.compile(r"train", re.IGNORECASE)
_KEEP = re.compile(r"keep|retain", re.IGNORECASE)
_DROP = re.compile(r"drop", re.IGNORECASE)
_SAME = frozenset({"Cast", "Identity", "Reshape"})
_BELOW = frozenset({"Less", "LessEqual"})  # What is drawn below a share is kept:
_ABOVE = frozenset({"Greater", "GreaterEqual"})  # above a rate, likewise.
_SUMS = frozenset({"Add", "AddV2"})  # floor(keep + drawn), as TensorFlow 1 had it until 1.12.
_NEAR = 6  # Operations between random numbers and their comparison.
_STATELESS = "StatelessRandom"


class Role(Enum):
    """What a value decides."""

    SWITCH = "a switch"
    KEEP = "the share that a dropout keeps"
    RATE = "the share that a dropout drops"
    OTHER = "a value"


def off_value(name: str, role: Role) -> bool | float:
    """The value in prediction, of any role but `OTHER`; a switch's name tells which way it goes."""
    if role is Role.SWITCH:
        return bool(_INVERTED.search(name)) and not _TRAINING.search(name)
    return 1.0 if role is Role.KEEP else 0.0


def says_switch(name: str) -> bool:
    """Whether a name speaks of training, or of its contrary."""
    return bool(_INVERTED.search(name) or _TRAINING.search(name))


class RoleFinder(NamedTuple):
    """Tells what the values decide that a sub-graph is computed from."""

    needed: SubGraph

    def role(self, info: TensorInfo) -> Role | None:
        """What a placeholder, or a variable, decides; None where it is not known."""
        if info.shape not in (None, ()):
            return None
        if info.dtype.name == "bool":
            return Role.SWITCH
        if not info.dtype.is_floating:
            return None
        role = self._compared(node_of(info.name))
        if role is None and (_KEEP.search(info.name) or _DROP.search(info.name)):
            return Role.KEEP if _KEEP.search(info.name) else Role.RATE
        return role

    def _compared(self, node: str) -> Role | None:
        """By what random numbers are compared with: the number, or one minus it."""
        meta = self.needed.meta
        waiting, seen = [(node, Role.KEEP, Role.RATE)], set[str]()
        while waiting:
            name, kept, dropped = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            takers = meta.takers.get(name, ())
            for taker in (taker for taker in takers if taker in self.needed.names):
                inputs = meta.givers(taker)
                op, second = meta.nodes[taker].op, inputs[-1] == name
                if op in _SAME:
                    waiting.append((taker, kept, dropped))
                elif op == "Sub" and second:
                    waiting.append((taker, dropped, kept))
                elif op in _SUMS | _BELOW | _ABOVE:
                    keeps = op in _SUMS or (op in _BELOW) == second
                    if self._is_random(inputs[0] if second else inputs[-1]):
                        return kept if keeps else dropped
        return None

    def _is_random(self, name: str, near: int = _NEAR) -> bool:
        """Whether a few operations at most lie between random numbers and a node."""
        if near == 0:
            return False
        op, givers = self.needed.meta.nodes[name].op, self.needed.meta.givers(name)
        drawn = op in RANDOM_OPS or op.startswith(_STATELESS)
        return drawn or any(self._is_random(giver, near - 1) for giver in givers)


# What mixes the rows of a run, so that the result of one depends on the others.

_OVER_AXES = frozenset(
    {"All", "Any", "Cumprod", "Cumsum", "Max", "Mean", "Min", "Prod", "ReverseV2", "Sum"}
)
NORMALISES = "FusedBatchNorm"
_SHOWN = 3


def mixing(rows: Iterable[tf.Tensor], result: tf.Tensor) -> str:
    """Names what mixes rows on the way to a result, as the end of a line, and the way out.

    They are tensors of an imported graph. It is empty where nothing is found.
    """
    needed, waiting = set[str](), [result.op]
    for op in waiting:  # It grows.
        if op.name not in needed:
            needed.add(op.name)
            waiting += [taken.op for taken in op.inputs]
    of_rows, turned, found = {tensor.op.name for tensor in rows}, set[str](), list[str]()
    for op in result.graph.get_operations():
        taken = {tensor.op.name for tensor in op.inputs} if op.name in needed else set[str]()
        if taken & of_rows and op.type not in _SHAPE_OPS:
            found += _mixes(op)
            if op.type == "Transpose" and _constant(op)[:1] != [0]:
                turned.add(op.name)
            elif any(o.shape.rank is None or None in o.shape.as_list()[:1] for o in op.outputs):
                of_rows.add(op.name)  # Not what has another first size, as a stack has.
        elif op.type in ("LogSoftmax", "Softmax") and taken & turned and not op.inputs[0].shape[-1]:
            found.append(f"{op.name} ({op.type}) goes over all rows")
    keeps = any(f"({op}" in how for how in found for op in ("Mean", NORMALISES))
    way_out = "; --use_moving_averages takes the averages that training kept" if keeps else ""
    return first_few(found, _SHOWN) + way_out


def _mixes(op: tf.Operation) -> list[str]:
    """What an operation does that takes all rows together, along the first axis of its input."""
    name, shape = f"{op.name} ({op.type})", op.inputs[0].shape
    if op.type.startswith(NORMALISES) and op.get_attr("is_training"):
        return [f"{name} normalises over all axes of {format_shape(shape)} but the channels"]
    axes = _constant(op) if op.type in _OVER_AXES and op.inputs[0].dtype.is_floating else []
    return [f"{name} goes over all rows"] if {0, -(shape.rank or 0)}.intersection(axes) else []


def _constant(op: tf.Operation) -> list[int]:
    """The numbers that an operation's second input is, if it is a constant."""
    node = op.inputs[1].op.node_def
    return constant(node.attr["value"].tensor).ravel().tolist() if node.op == "Const" else []
