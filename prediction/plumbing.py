"""Which nodes of a graph serve a saver, a queue, a data set or the training, and no prediction.

Told from the operations and their wiring alone, as names of strangers' graphs mean nothing.
"""

from collections.abc import Collection

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from prediction.wiring import Wiring, scope_of

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
