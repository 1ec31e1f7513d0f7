"""The graph of an edited checkpoint: pruned where variables are gone, with the new names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.errors import first_few
from checkpoints.loading.fed_tensors import is_node_name
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.saver_mapping import checkpoint_keys, saver_keys
from checkpoints.loading.variable_values import graph_variables
from checkpoints.meta_graph import PREDICT_COLLECTION
from tools.common.errors import ToolError
from tools.editing.contents import Tensor
from tools.editing.lost import drop_lost
from tools.editing.pruning import nodes_to_keep
from tools.editing.references import Names, rename
from tools.editing.rules import NewNames
from tools.editing.saver import Saver, find_saver, is_present_format, replace_saver
from tools.editing.saver_nodes import drop_nodes


class EditedGraph(NamedTuple):
    """A new meta graph.

    Attributes:
      proto: the MetaGraphDef.
      names: the new names of its nodes, and of the keys of its checkpoint.
      nodes_before: how many nodes the old one had.
    """

    proto: MetaGraphDef
    names: Names
    nodes_before: int


def edit_graph(
    meta: MetaGraphFile,
    held: Sequence[str],
    tensors: Sequence[Tensor],
    new_names: NewNames,
    outputs: Sequence[str],
) -> EditedGraph:
    """The graph that goes with the new checkpoint; the file's own is left as it is.

    Args:
      meta: the file.
      held: all keys of the old checkpoint.
      tensors: those that the new one has.
      new_names: gives nodes their names.
      outputs: what has to stay where the graph is pruned.

    Raises:
      CheckpointError: the graph is damaged.
      ToolError: an output needs what is dropped, two nodes would be called the same, or the saver
        cannot be made anew.
    """
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    saver = find_saver(meta)
    by_key = {tensor.old: tensor for tensor in tensors}
    variables = [variable.name for variable in graph_variables(meta)]
    removed, kept = _divide(meta, variables, held, by_key)
    if removed:
        keep = nodes_to_keep(meta, saver, outputs, removed, kept)
        drop_nodes(proto, meta.nodes.keys() - keep)
    _fit_saver(proto, meta, saver, by_key, bool(removed))
    left = [node.name for node in proto.graph_def.node]
    drop_lost(proto, meta.nodes.keys() - {*left})
    if removed:
        _name_prediction(proto, meta, outputs)
    nodes = new_names.of(left, {*variables} & {*left})
    names = Names(nodes, {tensor.old: tensor.new for tensor in tensors})
    _check_names(names)
    rename(proto, names)
    return EditedGraph(proto, names, len(meta.nodes))


def _divide(
    meta: MetaGraphFile,
    variables: Sequence[str],
    held: Sequence[str],
    kept: Mapping[str, Tensor],
) -> tuple[set[str], set[str]]:
    """The variables of the graph that the new checkpoint lacks, and those that it has.

    What no checkpoint of this graph ever had, as no saver saves it, is neither.
    """
    places = checkpoint_keys(meta, variables, held)
    saved = saver_keys(meta)
    has = {name for name in variables if places[name].key in kept}
    lacks = {n for n in variables if n not in has and (n in saved or places[n].key in held)}
    return lacks, has


def _fit_saver(
    proto: MetaGraphDef,
    meta: MetaGraphFile,
    saver: Saver | None,
    kept: Mapping[str, Tensor],
    pruned: bool,
) -> None:
    """Has the file's saver restore what the new checkpoint holds, as it is stored there."""
    cast = any(tensor.stored != tensor.dtype for tensor in kept.values())
    if saver is None:
        if cast:
            raise ToolError(
                f"{meta.path} has no saver, which would have to cast what it restores: leave out "
                "--cast or --meta"
            )
        return
    if pruned or cast or not is_present_format(meta, saver):
        stored = {key: tensor.stored.as_datatype_enum for key, tensor in kept.items()}
        replace_saver(proto, saver, kept.keys(), stored)


def _name_prediction(proto: MetaGraphDef, meta: MetaGraphFile, outputs: Sequence[str]) -> None:
    """Makes the outputs the prediction, where the file's own is no longer there, or never was."""
    collection = proto.collection_def[PREDICT_COLLECTION]
    if not collection.node_list.value or collection != meta.collection(PREDICT_COLLECTION):
        collection.node_list.value[:] = outputs


def _check_names(names: Names) -> None:
    """Raises ToolError where TensorFlow would not take a new name."""
    wrong = [
        f"{new} for {old}"
        for old, new in names.nodes.items()
        if old != new and not is_node_name(new)
    ]
    if wrong:
        raise ToolError(f"no names of nodes: {first_few(wrong, 3)}")
