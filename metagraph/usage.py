"""What a stranger's graph could be fed, and what it may predict, where it does not say so itself.

Names mean nothing there: operations tell, and who takes what of whom. Set aside is what serves a
saver, a queue, a data set or the training.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile, node_of
from metagraph.variables import VARIABLE_OPS

_SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_MAX_INPUTS = 64  # So many are told apart.


class Wiring(NamedTuple):
    """The data inputs of a graph; control inputs are left out, cycles of old loops are not.

    Attributes:
      nodes: by name, in the file's order.
      taken: node -> the names of the tensors it takes, as in the file.
      takers: node -> the nodes that take an output of it, once for each.
    """

    nodes: Mapping[str, NodeDef]
    taken: Mapping[str, Sequence[str]]
    takers: Mapping[str, Sequence[str]]

    def tensors_taken(self, taker: str, name: str) -> set[str]:
        """The full names of those outputs of the node `name` that `taker` takes."""
        taken = (text for text in self.taken[taker] if node_of(text) == name)
        return {f"{name}:{output_index(text)}" for text in taken}


def wiring_of(meta: MetaGraphFile) -> Wiring:
    """Inputs that do not exist are left out."""
    taken: dict[str, list[str]] = {}
    takers: dict[str, list[str]] = defaultdict(list)
    for name, node in meta.nodes.items():
        taken[name] = [
            text for text in node.input if not text.startswith("^") and node_of(text) in meta.nodes
        ]
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

    Args:
      wiring: of the graph.
      inputs: full tensor names, of which the first 64 count. Where there are none, each node
        depends on none of them; else a node that depends on none is not in the result.
      left_out: nodes that the walk stops at, and that are not in the result.
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
    only to a metric's variable; a placeholder that goes only there is no input.
    """
    found = _filled(meta, wiring)
    found |= {n.name for n in meta.nodes.values() if "Summary" in n.op or _GRADIENT.search(n.name)}
    placeholders = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
    taken = {n.name for n in meta.nodes.values() if n.op in placeholders} & wiring.takers.keys()
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
    """What hands out the rows of the iterators that a placeholder is the handle of.

    Such a handle has a meaning in one session only: there is no value to feed. It is empty where
    the placeholder is something else, or is that too.
    """
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
    {"NoOp", "Const", "Assert", "PrintV2", "ReadVariableOp"}
    | _SHAPE_OPS
    | VARIABLE_OPS
    | PLACEHOLDERS
    | PLACEHOLDERS_WITH_DEFAULT
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
    labels, is left out.

    Args:
      wiring: of the graph.
      needs: the inputs that each node depends on, without plumbing; see `dependence`.
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
