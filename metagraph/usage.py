"""What the nodes of a stranger's graph are for, where it does not say so itself.

Operations tell, and who takes what of whom: what serves a saver, a queue, a data set or the
training; what may be a prediction; which values switch to training, or set a dropout.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.description import TensorInfo
from metagraph.graph import SubGraph, data_inputs
from metagraph.meta import INPUT_OPS, MetaGraphFile, node_of
from metagraph.safety import RANDOM_OPS
from metagraph.variables import VARIABLE_OPS

_SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_MAX_INPUTS = 64  # So many are told apart.


class Wiring(NamedTuple):
    """The data inputs of a graph; control inputs are left out, cycles of old loops are not."""

    nodes: Mapping[str, NodeDef]  # By name, in the file's order.
    taken: Mapping[str, Sequence[str]]  # Node -> the names of the tensors it takes, as in the file.
    takers: Mapping[str, Sequence[str]]  # Node -> who takes an output of it, once for each.

    def tensors_taken(self, taker: str, name: str) -> set[str]:
        """The full names of those outputs of the node `name` that `taker` takes."""
        taken = (text for text in self.taken[taker] if node_of(text) == name)
        return {f"{name}:{output_index(text)}" for text in taken}


def wiring_of(meta: MetaGraphFile) -> Wiring:
    """Inputs that do not exist are left out."""
    taken: dict[str, list[str]] = {}
    takers: dict[str, list[str]] = defaultdict(list)
    for name, node in meta.nodes.items():
        taken[name] = [text for text in data_inputs(node) if node_of(text) in meta.nodes]
        for text in taken[name]:
            takers[node_of(text)].append(name)
    return Wiring(meta.nodes, taken, takers)


def output_index(text: str) -> int:
    """1 of `a:1`, 0 of `a`; of what is neither, 0."""
    index = text.partition(":")[2]
    return int(index) if index.isdecimal() and len(index) < 10 else 0


def dependence(
    wiring: Wiring, inputs: Sequence[str], left_out: Collection[str]
) -> dict[str, set[str]]:
    """Node -> the inputs that its values depend on; on a tensor's shape alone, nothing depends.

    Of `inputs`, the first 64 count. The walk stops at nodes that are `left_out`; not in the result
    are they, and, if there are inputs, nodes that depend on none.
    """
    found = {name: set[str]() for name in wiring.nodes if not inputs and name not in left_out}
    for tensor in inputs[:_MAX_INPUTS]:
        source = node_of(tensor)
        found.setdefault(source, set()).add(tensor)
        takers = wiring.takers.get(source, ())
        waiting = [taker for taker in takers if tensor in wiring.tensors_taken(taker, source)]
        while waiting:
            name = waiting.pop()
            if name in left_out or tensor in found.get(name, ()):
                continue
            found.setdefault(name, set()).add(tensor)
            if wiring.nodes[name].op not in _SHAPE_OPS:
                waiting += wiring.takers.get(name, ())
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
_SOURCE_STARTS = ("IteratorGetNext", "OneShotIteratorGetNext")
_SOURCE_PARTS = ("Dequeue", "ParseExample", "ParseSingleExample", "ParseSequenceExample")
_HANDLED = "IteratorFromStringHandle"
_GRADIENT = re.compile(r"(^|/)gradients")  # A scope of tf.gradients.


def plumbing(meta: MetaGraphFile, wiring: Wiring) -> set[str]:
    """What is plumbing by its operation or scope, what only fills it, and what only looks on.

    A loss that goes to a summary or a gradient is a result all the same, and so is a head that goes
    only to a metric's variable. A placeholder that goes only there is none.
    """
    found = _filled(meta, wiring)
    found |= {n.name for n in meta.nodes.values() if "Summary" in n.op or _GRADIENT.search(n.name)}
    taken = {n.name for n in meta.nodes.values() if n.op in INPUT_OPS} & wiring.takers.keys()
    return found | {name for name in taken if found.issuperset(wiring.takers[name])}


def _filled(meta: MetaGraphFile, wiring: Wiring) -> set[str]:
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
    untold = {name: len(names) for name, names in wiring.takers.items()}
    waiting = list(filled)
    while waiting:
        for text in wiring.taken[waiting.pop()]:
            name = node_of(text)
            untold[name] -= 1
            if not untold[name] and name not in filled and meta.nodes[name].op not in _HEADS:
                filled.add(name)
                waiting.append(name)
    return filled


def _scope_of(node: NodeDef) -> str:
    return str(node.name).rpartition("/")[0]


def is_source(node: NodeDef) -> bool:
    """Whether it hands out rows that come from elsewhere than a feed."""
    return node.op.startswith(_SOURCE_STARTS) or any(part in node.op for part in _SOURCE_PARTS)


def behind_handle(wiring: Wiring, placeholder: str) -> list[str]:
    """What hands out the rows of the iterators whose handle a placeholder is, and only that."""
    iterators = dict.fromkeys(wiring.takers.get(placeholder, ()))
    if not all(wiring.nodes[name].op.startswith(_HANDLED) for name in iterators):
        return []
    takers = dict.fromkeys(taker for name in iterators for taker in wiring.takers.get(name, ()))
    return [taker for taker in takers if is_source(wiring.nodes[taker])]


# Which nodes may be predictions: usual heads such as a softmax, and the ends of the graph.
#
# Nothing goes on from an end alone: whatever takes it takes another input too, as a loss takes the
# labels. Labels are the inputs that neither a layer of weights stands on nor a head.

_HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK", "TopKV2"})
_LAYER_STARTS = ("MatMul", "BatchMatMul", "SparseMatMul", "Conv", "DepthwiseConv", "FusedBatchNorm")
_COPIES = frozenset({"Identity", "StopGradient", "Snapshot"})
_NO_RESULTS = frozenset(
    {"NoOp", "Const", "Assert", "PrintV2", "ReadVariableOp"} | _SHAPE_OPS | VARIABLE_OPS | INPUT_OPS
)
_REDUCTIONS = frozenset({"Mean", "Sum", "AddN", "L2Loss"})
_SUMMED = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv", "DivNoNan", "Identity"})
_MEASURE = re.compile("loss|entropy|accuracy|metric|error")
_MAX_COPIES = 32  # In a row.
_MAX_SUMMED = 6  # Operations that make one loss of several.


def likely_outputs(wiring: Wiring, needs: Mapping[str, set[str]]) -> list[str]:
    """The nodes that may be predictions: heads, other ends of the graph, then measures.

    Heads are in the file's order, of the others the last goes first. A copy stands before what it
    is a copy of. What needs more inputs than the first kind that there is, as a loss needs the
    labels, is left out. `needs` is the `dependence` without plumbing.
    """
    features = _features(wiring, needs)
    heads, results, measures = list[str](), list[str](), list[str]()
    for name in _ends(wiring, needs):
        root = _chain(wiring, name)[-1]
        op = wiring.nodes[root].op
        is_taken = any(taker in needs for taker in wiring.takers.get(name, ()))
        meets_labels = is_taken and not features.issuperset(needs[name])
        is_measure = _MEASURE.search(f"{name} {root}".lower()) or _is_reduced(wiring, needs, root)
        if meets_labels or is_measure:
            measures.append(name)
        else:
            (heads if op in _HEADS else results).append(name)
    given = set[str]().union(*(needs[name] for name in heads or results or measures))
    found = [x for x in (*heads, *reversed(results), *reversed(measures)) if needs[x] <= given]
    return [*dict.fromkeys(copy for name in found for copy in _chain(wiring, name)[:2])]


def _features(wiring: Wiring, needs: Mapping[str, Collection[str]]) -> set[str]:
    """The inputs that layers of weights stand on; all where there is none.

    A product of two values, as in a metric, is no layer of weights.
    """
    layers = _layers(wiring, needs)
    weighted = [x for x in layers if any(node_of(text) not in needs for text in wiring.taken[x])]
    return set[str]().union(*(needs[name] for name in weighted or needs))


def _layers(wiring: Wiring, names: Iterable[str]) -> list[str]:
    return [name for name in names if wiring.nodes[name].op.startswith(_LAYER_STARTS)]


def _ends(wiring: Wiring, needs: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The nodes that may be outputs, in the file's order; of copies of one, the last."""
    under_layers, waiting = set[str](), _layers(wiring, needs)
    while waiting:
        before = {node_of(text) for text in wiring.taken[waiting.pop()]} - under_layers
        under_layers |= before
        waiting += before
    for name in wiring.nodes:
        takers = [taker for taker in wiring.takers.get(name, ()) if taker in needs]
        if name not in needs or name in under_layers:
            continue
        if any(wiring.nodes[taker].op in _COPIES for taker in takers):
            continue
        op = wiring.nodes[_chain(wiring, name)[-1]].op
        goes_on = any(
            needs[taker] == needs[name] and wiring.nodes[taker].op not in _NO_RESULTS
            for taker in takers
        )
        if op in _HEADS or not (goes_on or op in _NO_RESULTS):
            yield name


def _chain(wiring: Wiring, name: str) -> list[str]:
    """A node, what it is a copy of, and so on to what is no copy."""
    chain = [name]
    while wiring.nodes[chain[-1]].op in _COPIES and wiring.taken[chain[-1]]:
        source = wiring.taken[chain[-1]][0]
        if output_index(source) or node_of(source) in chain or len(chain) == _MAX_COPIES:
            break  # Only first outputs are offered, and a damaged graph may have cycles.
        chain.append(node_of(source))
    return chain


def _is_reduced(wiring: Wiring, needs: Collection[str], name: str, most: int = _MAX_SUMMED) -> bool:
    """Whether all that a node takes of the inputs has been reduced: a loss, a sum of losses."""
    op = wiring.nodes[name].op
    if op not in _SUMMED or not most:
        return op in _REDUCTIONS
    sources = [source for text in wiring.taken[name] if (source := node_of(text)) in needs]
    return bool(sources) and all(_is_reduced(wiring, needs, x, most - 1) for x in sources)


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


class RoleFinder:
    """Tells what the values decide that a sub-graph is computed from."""

    def __init__(self, needed: SubGraph) -> None:
        self._wiring = wiring_of(needed.meta)
        self._needed = needed.names

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
        waiting, seen = [(node, Role.KEEP, Role.RATE)], set[str]()
        while waiting:
            name, kept, dropped = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            takers = self._wiring.takers.get(name, ())
            for taker in (taker for taker in takers if taker in self._needed):
                inputs = self._inputs(taker)
                op, second = self._wiring.nodes[taker].op, inputs[-1] == name
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
        op = self._wiring.nodes[name].op
        if near > 0 and (op in RANDOM_OPS or op.startswith(_STATELESS)):
            return True
        return near > 0 and any(self._is_random(text, near - 1) for text in self._inputs(name))

    def _inputs(self, name: str) -> list[str]:
        return [node_of(text) for text in self._wiring.taken[name]]
