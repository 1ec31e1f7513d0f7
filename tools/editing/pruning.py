"""The part of a meta graph that is left where some variables are not: what predicts, and restores.

What trains goes, with all else that no output needs: gradients, slots, summaries, pipelines.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from checkpoints.errors import first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.sub_graph import reachable
from tools.common.errors import ToolError
from tools.editing.collected import message_of, texts_of
from tools.editing.saver import Saver

_SHOWN = 5
# Groups of operations that a client runs after it has restored, as they fill tables.
_INITIALIZERS = ("table_initializer", "legacy_init_op", "saved_model_main_op", "serving_init_op")
_CONTEXTS = ("cond_context", "while_context")
_ONLY_WAIT = "NoOp"


def nodes_to_keep(
    meta: MetaGraphFile,
    saver: Saver | None,
    outputs: Sequence[str],
    removed: Collection[str],
    kept: Collection[str],
) -> set[str]:
    """The names of the nodes that stay.

    Args:
      meta: the file.
      saver: its own, None where it has none.
      outputs: the tensors that have to stay.
      removed: the variables that are not in the new checkpoint.
      kept: those that are.

    Raises:
      ToolError: an output needs one of the removed variables.
    """
    for output in outputs:
        lost = sorted(reachable(meta, [node_of(output)]) & set(removed))
        if lost:
            raise ToolError(
                f"{output} needs {first_few(lost, _SHOWN)}, which the new checkpoint would lack; "
                "--fetch names other outputs to keep, and without --meta only the variables are "
                "written"
            )
    stays = reachable(meta, [*map(node_of, outputs), *kept])
    _add(meta, stays, _wanted(meta, saver, kept), removed)
    size = 0
    while len(stays) > size:
        size = len(stays)
        _add(meta, stays, [*_of_contexts(meta, stays)], removed)
    # What only waits for others stays for those of them that do.
    restoring = saver.restoring if saver else frozenset[str]()
    return stays | {name for name in restoring if meta.nodes[name].op == _ONLY_WAIT}


def _add(
    meta: MetaGraphFile, stays: set[str], roots: Iterable[str], removed: Collection[str]
) -> None:
    """Adds what some nodes stand on to `stays`, unless that is one of the removed variables."""
    for root in roots:
        if root in meta.nodes and root not in stays:
            below = reachable(meta, [root])
            if below.isdisjoint(removed):
                stays |= below


def _of_contexts(meta: MetaGraphFile, stays: Collection[str]) -> Iterator[str]:
    """All nodes of each loop and branch of which one stays: TensorFlow takes them as one."""
    for key in _CONTEXTS:
        for content in meta.collection(key).bytes_list.value:
            message = message_of(key, content, stays)
            if message is not None:
                values = message.values_def
                own = {*values.values} - {*values.external_values.values()}
                if any(node_of(text) in stays for text in own):
                    yield from (_node(text) for _, text in texts_of(message))


def _wanted(meta: MetaGraphFile, saver: Saver | None, kept: Collection[str]) -> Iterator[str]:
    """Nodes that are to stay unless they need a variable that does not."""
    for key, collection in meta.proto.collection_def.items():
        for content in collection.bytes_list.value:
            yield from _of_variable(key, content, kept)
    for key in _INITIALIZERS:
        yield from map(_node, meta.collection(key).node_list.value)
    for signature in meta.proto.signature_def.values():
        yield from (node_of(info.name) for info in signature.inputs.values())
    yield from (node_of(asset.tensor_info.name) for asset in meta.proto.asset_file_def)
    if saver is not None:
        yield node_of(meta.proto.saver_def.filename_tensor_name)
        yield from (node_of(piece.tensor) for piece in saver.saved)
        yield from _without(meta, saver.restoring, _ONLY_WAIT)


def _of_variable(key: str, content: bytes, kept: Collection[str]) -> Iterator[str]:
    """The nodes that the entry of a variable names: its initializer, its value, ..."""
    message = message_of(key, content, kept)
    if message is not None and node_of(getattr(message, "variable_name", "")) in kept:
        yield from (_node(text) for _, text in texts_of(message))


def _without(meta: MetaGraphFile, names: Iterable[str], op: str) -> Iterator[str]:
    return (name for name in names if meta.nodes[name].op != op)


def _node(text: str) -> str:
    return node_of(text.removeprefix("^"))
