"""What a stranger's graph is for: which of its tensors are likely its predictions.

Told from operations and from who takes what of whom. Set aside is what serves a saver, a queue, a
data set or the training.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile, node_of
from metagraph.variables import VARIABLE_OPS

SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
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


def scope_of(node: str) -> str:
    """`a/b` of `a/b/c`."""
    return posixpath.dirname(node)


def ancestors(wiring: Wiring, names: Collection[str]) -> set[str]:
    """What the named nodes are computed from; they themselves only where another is from them."""
    found = set[str]()
    waiting = list(names)
    while waiting:
        for text in wiring.taken[waiting.pop()]:
            if node_of(text) not in found:
                found.add(node_of(text))
                waiting.append(node_of(text))
    return found


def dependence(
    wiring: Wiring, inputs: Sequence[str], left_out: Collection[str]
) -> Mapping[str, int]:
    """Node -> the inputs that its values depend on, a bit for each, of the first input the lowest.

    What takes but the shape of a tensor does not depend on it.

    Args:
      wiring: of the graph.
      inputs: full tensor names; where there are none, each node depends on none of them. Of more
        than 64, the first ones count.
      left_out: nodes that the walk stops at.

    Returns:
      Nodes that depend on no input are not in it, nor what is left out.
    """
    if not inputs:
        return {name: 0 for name in wiring.nodes if name not in left_out}
    bits = {name: 1 << bit for bit, name in enumerate(inputs[:_MAX_INPUTS])}
    given = {node_of(name) for name in bits}
    found = {node: _bits_of(bits, [n for n in bits if node_of(n) == node]) for node in given}
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        if wiring.nodes[name].op in SHAPE_OPS:
            continue
        for taker in set(wiring.takers.get(name, ())).difference(left_out):
            passed = found[name]
            if name in given:  # Of several outputs, each is an input of its own.
                passed = _bits_of(bits, wiring.tensors_taken(taker, name))
            both = found.get(taker, 0) | passed
            if both != found.get(taker, 0):
                found[taker] = both
                waiting.append(taker)
    return found


def _bits_of(bits: Mapping[str, int], names: Collection[str]) -> int:
    total = 0
    for name in names:
        total |= bits.get(name, 0)
    return total


# Which nodes of a graph serve a saver, a queue, a data set or the training, and no prediction.
#
# Told from the operations and their wiring alone, as names of strangers' graphs mean nothing.

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


def plumbing(meta: MetaGraphFile, wiring: Wiring, results: Collection[str]) -> set[str]:
    """What is plumbing by its operation or scope, what only fills it, and what only looks on.

    A loss that goes to a summary or a gradient is a result all the same; a placeholder that goes
    only there is no input.

    Args:
      meta: the file.
      wiring: of its graph.
      results: operations that are no plumbing, even where they only fill it: a head that goes
        nowhere but to a metric's variable.
    """
    filled = _filled(meta, wiring, results)
    watching = {n.name for n in meta.nodes.values() if "Summary" in n.op or _is_gradient(n)}
    found = filled | watching
    return found | {
        name
        for name, node in meta.nodes.items()
        if node.op in PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
        and wiring.takers.get(name)
        and found.issuperset(wiring.takers[name])
    }


def _filled(meta: MetaGraphFile, wiring: Wiring, results: Collection[str]) -> set[str]:
    """What keeps values or hands them to others than its takers, and what goes nowhere else."""
    savers = {scope_of(node.name) for node in meta.nodes.values() if node.op in _SAVER_OPS} - {""}
    filled = {node_of(meta.proto.saver_def.filename_tensor_name)} & meta.nodes.keys()
    filled |= {n.name for n in meta.nodes.values() if _is_filled(n) or scope_of(n.name) in savers}
    untold = {name: len(names) for name, names in wiring.takers.items()}
    waiting = list(filled)
    while waiting:
        for text in wiring.taken[waiting.pop()]:
            name = node_of(text)
            untold[name] -= 1
            if not untold[name] and name not in filled and meta.nodes[name].op not in results:
                filled.add(name)
                waiting.append(name)
    return filled


def _is_filled(node: NodeDef) -> bool:
    if node.op in _SAVER_OPS or node.op.startswith(_FILLED_STARTS):
        return True
    return not is_source(node) and any(part in node.op for part in _FILLED_PARTS)


def _is_gradient(node: NodeDef) -> bool:
    return any(part.startswith("gradients") for part in node.name.split("/"))


def is_source(node: NodeDef) -> bool:
    """Whether it hands out rows that come from elsewhere than a feed."""
    return node.op.startswith(_SOURCE_STARTS) or any(part in node.op for part in _SOURCE_PARTS)


def handled_iterators(wiring: Wiring, placeholder: str) -> list[str]:
    """The iterators that a placeholder is the handle of; none where it is something else too.

    Such a handle has a meaning in one session only: there is no value to feed.
    """
    takers = wiring.takers.get(placeholder, ())
    if all(wiring.nodes[taker].op.startswith(_HANDLED) for taker in takers):
        return [*dict.fromkeys(takers)]
    return []


# Which tensors of a graph are likely its predictions, told from operations and wiring.
#
# A prediction is the result of layers and no later layer stands on it. It is a usual head such as a
# softmax, or nothing goes on from it alone: whatever takes it takes another input too, as a loss
# takes the labels. Labels are told as the inputs that no layer of weights stands on, or that
# measures need and predictions do not.

HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK", "TopKV2"})
_LOGITS = frozenset({"BiasAdd"})
_LAYER_STARTS = ("MatMul", "BatchMatMul", "SparseMatMul", "Conv", "DepthwiseConv", "FusedBatchNorm")
_COPIES = frozenset({"Identity", "StopGradient", "Snapshot"})
_NO_RESULTS = frozenset(
    {"NoOp", "Const", "Assert", "PrintV2", "ReadVariableOp"}
    | SHAPE_OPS
    | VARIABLE_OPS
    | PLACEHOLDERS
    | PLACEHOLDERS_WITH_DEFAULT
)
_REDUCTIONS = frozenset({"Mean", "Sum", "AddN", "L2Loss"})
_SUMMED = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv", "DivNoNan", "Identity"})
_MAX_SUMMED = 64  # Nodes that make one loss of several.
_NUMBER = re.compile(r"_\d+(?=/|$)")
_MEASURE = re.compile("loss|entropy|accuracy|metric|error")
_MAX_COMPARED = 200  # The last of the file; fewer in a graph so large that it would take long.
_MAX_VISITS = 4_000_000  # Of nodes, while they are compared.
_MAX_COPIES = 32  # In a row.
_MAX_NAMES = 2  # Of one value.
# What lays values out anew or picks some, and is named by nobody, is a step to somewhere.
_STEPS = frozenset({"Reshape", "Concat", "ConcatV2", "TopK", "TopKV2"})
_HEAD, _RESULT, _LOGIT, _STEP, _LABELLED, _MEASURED = range(6)  # The kinds, the likeliest first.


class Likely(NamedTuple):
    """A node that may be an output.

    Attributes:
      name: of the node.
      predicts: whether it is a prediction; else it needs the labels or is a measure of it.
    """

    name: str
    predicts: bool


class _Graph(NamedTuple):
    """What the search goes by.

    Attributes:
      wiring: of the graph.
      needs: see `dependence`.
      layers: the nodes that are layers.
      features: the bits of the inputs that layers of weights stand on; all where there is none.
    """

    wiring: Wiring
    needs: Mapping[str, int]
    layers: frozenset[str]
    features: int


def likely_outputs(wiring: Wiring, needs: Mapping[str, int]) -> list[Likely]:
    """The likeliest first: usual heads, other results, logits, steps, what needs labels, measures.

    Where one is a copy of another they stand together, first the one with a name of its own. Of
    a series such as `concat`, `concat_1` there is one. Where there is a prediction, there is
    nothing that needs an input beyond those of the predictions, as a loss needs the labels.

    Args:
      wiring: of the graph.
      needs: the inputs that each node depends on, without plumbing.
    """
    graph = _graph(wiring, needs)
    most = min(_MAX_COMPARED, max(1, _MAX_VISITS // max(1, len(wiring.nodes))))
    ends = list(_ends(graph))[-most:]
    depths = {name: len(_layers_of(graph, name)) for name in ends}
    deep = [name for name in ends if depths[name] or not any(depths.values())]
    order = sorted(deep, key=lambda name: _rank(graph, name, depths[name]))
    found: dict[str, bool] = {}
    for name in _without_labels(graph, _without_series(graph, order)):
        copies = sorted(_chain(graph, name), key=lambda copy: _has_ops_name(graph, copy))
        for copy in copies[:_MAX_NAMES]:
            found.setdefault(copy, _kind(graph, name) < _LABELLED)
    return [Likely(name, predicts) for name, predicts in found.items()]


def _graph(wiring: Wiring, needs: Mapping[str, int]) -> _Graph:
    layers = frozenset(name for name in needs if wiring.nodes[name].op.startswith(_LAYER_STARTS))
    # A product of two values, as in a metric, is no layer of weights; in attention, both values
    # come from such layers.
    weighted = [x for x in layers if any(node_of(text) not in needs for text in wiring.taken[x])]
    features = 0
    for name in weighted or needs:
        features |= needs[name]
    return _Graph(wiring, needs, layers, features)


def _ends(graph: _Graph) -> Iterator[str]:
    """The nodes, in the file's order, that may be outputs; of copies of one, the last."""
    under_layers = ancestors(graph.wiring, graph.layers)
    for name in graph.wiring.nodes:
        if name in graph.needs and name not in under_layers and not _is_copied(graph, name):
            is_head = graph.wiring.nodes[_root(graph, name)].op in HEADS | _LOGITS
            if is_head or (not _goes_on(graph, name) and not _is_no_result(graph, name)):
                yield name


def _without_series(graph: _Graph, names: Sequence[str]) -> Iterator[str]:
    """The nodes, but of steps whose names differ in their numbers only the first."""
    seen = set[str]()
    for name in names:
        if graph.wiring.nodes[_root(graph, name)].op in _STEPS:
            series = _NUMBER.sub("", name)
            if series in seen:
                continue
            seen.add(series)
        yield name


def _without_labels(graph: _Graph, names: Iterable[str]) -> list[str]:
    """The nodes that need no labels, the likeliest first as given; all where none predicts."""
    kinds = {name: _kind(graph, name) for name in names}
    best = min(kinds.values(), default=_MEASURED)
    if best >= _LABELLED:
        return [*kinds]
    inputs = 0
    for name, kind in kinds.items():
        inputs |= graph.needs[name] if kind == best else 0
    return [
        name for name, kind in kinds.items() if kind < _LABELLED or not graph.needs[name] & ~inputs
    ]


def _is_copied(graph: _Graph, name: str) -> bool:
    takers = graph.wiring.takers.get(name, ())
    return any(t in graph.needs and graph.wiring.nodes[t].op in _COPIES for t in takers)


def _goes_on(graph: _Graph, name: str) -> bool:
    """Whether something is computed from a node that needs no other inputs."""
    return any(
        graph.needs.get(taker) == graph.needs[name]
        and graph.wiring.nodes[taker].op not in _NO_RESULTS
        for taker in graph.wiring.takers.get(name, ())
    )


def _is_no_result(graph: _Graph, name: str) -> bool:
    """Whether it computes nothing; a variable's own node for reading it does not."""
    return graph.wiring.nodes[_root(graph, name)].op in _NO_RESULTS


def _chain(graph: _Graph, name: str) -> list[str]:
    """A node, what it is a copy of, and so on to what is no copy."""
    chain = [name]
    while graph.wiring.nodes[chain[-1]].op in _COPIES and graph.wiring.taken[chain[-1]]:
        source = graph.wiring.taken[chain[-1]][0]
        if output_index(source) or node_of(source) in chain or len(chain) == _MAX_COPIES:
            break  # Only first outputs are offered, and a damaged graph may have cycles.
        chain.append(node_of(source))
    return chain


def _root(graph: _Graph, name: str) -> str:
    """What a node is in the end a copy of; itself where it is none."""
    return _chain(graph, name)[-1]


def _has_ops_name(graph: _Graph, name: str) -> bool:
    """Whether nobody chose a node's name: it is that of its operation, as `Identity_1`."""
    leaf = re.sub(r"_\d+$", "", name.rpartition("/")[2])
    op = graph.wiring.nodes[name].op
    return leaf.lower() in (op.lower(), re.sub(r"V\d$", "", op).lower())


def _layers_of(graph: _Graph, name: str) -> frozenset[str]:
    return graph.layers & (ancestors(graph.wiring, [name]) | {name})


def _rank(graph: _Graph, name: str, depth: int) -> tuple[int, int, int, int]:
    """Sorts by kind; heads of few inputs first, of others those that were trained, then deep ones.

    What was trained, a loss takes; a byproduct of a layer, nobody.
    """
    kind, inputs = _kind(graph, name), graph.needs[name].bit_count()
    first = inputs if kind == _HEAD else not _meets_labels(graph, name)
    return kind, first, -depth, inputs


def _kind(graph: _Graph, name: str) -> int:
    root = _root(graph, name)
    op = graph.wiring.nodes[root].op
    texts = (name.lower(), root.lower())
    if any(_MEASURE.search(text) for text in texts) or _is_reduced(graph, root):
        return _MEASURED
    # Labels go to a measure; an input that no layer takes may also be a mask over the results.
    if graph.needs[name] & ~graph.features and _is_taken(graph, name):
        return _LABELLED
    if op in _STEPS and all(_has_ops_name(graph, copy) for copy in _chain(graph, name)):
        return _STEP
    if op in HEADS:
        return _HEAD
    return _LOGIT if op in _LOGITS else _RESULT


def _is_reduced(graph: _Graph, name: str) -> bool:
    """Whether all that a node takes of the inputs has been reduced: a loss, a sum of losses."""
    waiting, seen = [name], set[str]()
    while waiting:
        node = waiting.pop()
        if node in seen or graph.wiring.nodes[node].op in _REDUCTIONS:
            continue
        seen.add(node)
        sources = {node_of(text) for text in graph.wiring.taken[node]} & graph.needs.keys()
        if graph.wiring.nodes[node].op not in _SUMMED or not sources or len(seen) > _MAX_SUMMED:
            return False
        waiting += sources
    return True


def _meets_labels(graph: _Graph, name: str) -> bool:
    takers = graph.wiring.takers.get(name, ())
    return any(graph.needs.get(taker, 0) & ~graph.features for taker in takers)


def _is_taken(graph: _Graph, name: str) -> bool:
    return any(taker in graph.needs for taker in graph.wiring.takers.get(name, ()))


def most_likely(found: Sequence[Likely], most: int) -> tuple[str, ...]:
    """The first outputs of the first nodes."""
    return tuple(f"{likely.name}:0" for likely in found[:most])
