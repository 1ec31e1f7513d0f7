"""What could be fed to and fetched from a graph that does not say so itself.

Told from the operations and their wiring alone, as names of strangers' graphs mean nothing:

- Plumbing is what ends in a saver, a queue, a data set or an assignment: a placeholder such as
  `save/Const` or `enqueue_input/Placeholder` is no input of the model.
- Where rows come from a queue, an iterator or a parser, its outputs can be fed in its place.
- A prediction is the result of layers and no later layer stands on it; it is a usual head such as
  a softmax, or whatever takes it takes another input too, as a loss takes the labels.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from checkpoints.loading.variable_values import VARIABLE_OPS

_PLACEHOLDERS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
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
_LAYER_STARTS = ("MatMul", "BatchMatMul", "SparseMatMul", "Conv", "DepthwiseConv", "FusedBatchNorm")
_HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK", "TopKV2"})
_LOGITS = frozenset({"BiasAdd"})
_NO_RESULTS = frozenset(
    {"NoOp", "Const", "Assert", "PrintV2", "Shape", "ReadVariableOp"} | VARIABLE_OPS | _PLACEHOLDERS
)
_REDUCTIONS = frozenset({"Mean", "Sum", "AddN", "L2Loss"})
_MEASURE = re.compile("loss|entropy|accuracy|metric|error")
_MAX_INPUTS = 64  # So many are told apart.
_MAX_COMPARED = 200  # As outputs; the last of the file.
_MAX_OUTPUTS = 10


class Candidates(NamedTuple):
    """Full names of tensors.

    Attributes:
      inputs: the model's placeholders: those of the signature first, then those without a default.
      pipeline: what could be fed where the rows come from a pipeline.
      outputs: what could be fetched, the likeliest first.
    """

    inputs: tuple[str, ...]
    pipeline: tuple[str, ...]
    outputs: tuple[str, ...]


class _Wiring(NamedTuple):
    """Who takes what of whom; control inputs are left out, cycles of old loops are not.

    Attributes:
      nodes: by name.
      taken: node -> the names of the tensors it takes, as in the file.
      takers: node -> the nodes that take an output of it, once for each.
      plumbing: the nodes that serve nothing but plumbing, and what only looks on.
    """

    nodes: Mapping[str, NodeDef]
    taken: Mapping[str, Sequence[str]]
    takers: Mapping[str, Sequence[str]]
    plumbing: Collection[str]


def find_candidates(meta: MetaGraphFile) -> Candidates:
    """Looks through the whole graph; takes time in proportion to it."""
    wiring = _wiring(meta)
    inputs = _inputs(meta, wiring)
    pipeline = _pipeline(wiring)
    return Candidates(inputs, pipeline, _outputs(wiring, (*inputs, *pipeline)))


def _wiring(meta: MetaGraphFile) -> _Wiring:
    taken: dict[str, list[str]] = {}
    takers: dict[str, list[str]] = defaultdict(list)
    for name, node in meta.nodes.items():
        taken[name] = [
            text for text in node.input if not text.startswith("^") and node_of(text) in meta.nodes
        ]
        for text in taken[name]:
            takers[node_of(text)].append(name)
    return _Wiring(meta.nodes, taken, takers, _plumbing(meta, taken, takers))


def _plumbing(
    meta: MetaGraphFile, taken: Mapping[str, Sequence[str]], takers: Mapping[str, Sequence[str]]
) -> set[str]:
    """What is plumbing by its operation or scope, and what only fills it.

    A loss that goes to a summary or a gradient, or a head that goes to a metric, is a result all
    the same; a placeholder that goes only there is no input.
    """
    savers = {_scope(node.name) for node in meta.nodes.values() if node.op in _SAVER_OPS} - {""}
    filled = {node_of(meta.proto.saver_def.filename_tensor_name)} & meta.nodes.keys()
    filled |= {n.name for n in meta.nodes.values() if _is_filled(n) or _scope(n.name) in savers}
    untold = {name: len(names) for name, names in takers.items()}
    waiting = list(filled)
    while waiting:
        for text in taken[waiting.pop()]:
            name = node_of(text)
            untold[name] -= 1
            if not untold[name] and name not in filled and meta.nodes[name].op not in _HEADS:
                filled.add(name)
                waiting.append(name)
    watching = {n.name for n in meta.nodes.values() if "Summary" in n.op or _is_gradient(n)}
    found = filled | watching
    return found | {
        name
        for name, node in meta.nodes.items()
        if node.op in _PLACEHOLDERS and takers.get(name) and found.issuperset(takers[name])
    }


def _is_filled(node: NodeDef) -> bool:
    """Whether an operation keeps what it takes, or hands it to others than its takers."""
    if node.op in _SAVER_OPS or node.op.startswith(_FILLED_STARTS):
        return True
    return not _is_source(node) and any(part in node.op for part in _FILLED_PARTS)


def _is_gradient(node: NodeDef) -> bool:
    return any(part.startswith("gradients") for part in node.name.split("/"))


def _is_source(node: NodeDef) -> bool:
    """Whether it hands out rows that come from elsewhere than a feed."""
    return node.op.startswith(_SOURCE_STARTS) or any(part in node.op for part in _SOURCE_PARTS)


def _scope(node: str) -> str:
    """`a/b` of `a/b/c`."""
    return posixpath.dirname(node)


def _inputs(meta: MetaGraphFile, wiring: _Wiring) -> tuple[str, ...]:
    signed = [meta.find_tensor(info.name) for _, info in sorted(meta.signature.inputs.items())]
    ops = {f"{name}:0": node.op for name, node in meta.nodes.items() if name not in wiring.plumbing}
    plain = [name for name, op in ops.items() if op in PLACEHOLDERS]
    optional = [name for name, op in ops.items() if op in PLACEHOLDERS_WITH_DEFAULT]
    return tuple(dict.fromkeys([*filter(None, signed), *plain, *optional]))


def _pipeline(wiring: _Wiring) -> tuple[str, ...]:
    """The outputs of sources that the model takes, in the file's order."""
    sources = [name for name, node in wiring.nodes.items() if _is_source(node)]
    return tuple(
        f"{name}:{index}"
        for name in sources
        for index in sorted(
            {
                _index(text)
                for taker in wiring.takers.get(name, ())
                if taker not in wiring.plumbing
                for text in wiring.taken[taker]
                if node_of(text) == name
            }
        )
    )


def _index(text: str) -> int:
    """1 of `a:1`, 0 of `a`; of what is neither, 0."""
    index = text.partition(":")[2]
    return int(index) if index.isdecimal() and len(index) < 10 else 0


def _outputs(wiring: _Wiring, inputs: Sequence[str]) -> tuple[str, ...]:
    """Results of layers, the likeliest first: usual heads of a model, then logits; losses last."""
    needs = _needs(wiring, inputs)
    layers = {name for name in needs if wiring.nodes[name].op.startswith(_LAYER_STARTS)}
    under_layers = _ancestors(wiring, layers)
    ends = [
        name
        for name in wiring.nodes
        if name in needs and name not in under_layers and _may_be_output(wiring, needs, name)
    ]
    found = {
        name: len(_ancestors(wiring, [name]) & layers) + (name in layers)
        for name in ends[-_MAX_COMPARED:]
    }
    deepest = [name for name in found if found[name] or not any(found.values())]
    deepest.sort(key=lambda name: (*_rank(wiring.nodes[name], needs[name]), -found[name]))
    return tuple(f"{name}:0" for name in deepest[:_MAX_OUTPUTS])


def _may_be_output(wiring: _Wiring, needs: Mapping[str, int], name: str) -> bool:
    """Whether nothing goes on from a node with the same inputs, or it is a usual head."""
    if wiring.nodes[name].op in _HEADS | _LOGITS:
        return True
    goes_on = any(needs.get(taker) == needs[name] for taker in wiring.takers.get(name, ()))
    return not goes_on and not _is_no_result(wiring, name)


def _is_no_result(wiring: _Wiring, name: str) -> bool:
    """Whether it computes nothing; a variable's own node for reading it does not."""
    node, taken = wiring.nodes[name], wiring.taken[name]
    of_variable = taken and wiring.nodes[node_of(taken[0])].op in VARIABLE_OPS
    return node.op in _NO_RESULTS or (node.op == "Identity" and bool(of_variable))


def _rank(node: NodeDef, needs: int) -> tuple[bool, int, int]:
    """Sorts losses and other measures last, usual heads first, of these what takes few inputs."""
    measure = node.op in _REDUCTIONS or _MEASURE.search(node.name.lower()) is not None
    if node.op in _HEADS | _LOGITS:
        return measure, int(node.op in _LOGITS), needs.bit_count()
    return measure, 2, 0


def _needs(wiring: _Wiring, inputs: Sequence[str]) -> dict[str, int]:
    """Node -> the inputs that it depends on, a bit for each; plumbing and the rest are left out.

    Where there is no input at all, each node has none of them.
    """
    if not inputs:
        return {name: 0 for name in wiring.nodes if name not in wiring.plumbing}
    needs: dict[str, int] = {}
    for bit, name in enumerate(inputs[:_MAX_INPUTS]):
        needs[node_of(name)] = needs.get(node_of(name), 0) | 1 << bit
    waiting = list(needs)
    while waiting:
        name = waiting.pop()
        for taker in wiring.takers.get(name, ()):
            both = needs.get(taker, 0) | needs[name]
            if taker not in wiring.plumbing and both != needs.get(taker):
                needs[taker] = both
                waiting.append(taker)
    return needs


def _ancestors(wiring: _Wiring, names: Collection[str]) -> set[str]:
    """What the named nodes are computed from; they themselves only where another is from them."""
    found = set[str]()
    waiting = list(names)
    while waiting:
        for text in wiring.taken[waiting.pop()]:
            if node_of(text) not in found:
                found.add(node_of(text))
                waiting.append(node_of(text))
    return found
