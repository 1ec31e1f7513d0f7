"""The graph that goes with an edited checkpoint: what predicts and restores, under its own names.

A stock client restores by the graph's saver, so that it is made anew: it names what the new
checkpoint holds, and nothing else. Where variables are gone, so is all that no output needs:
gradients, slots, summaries, pipelines. The graph is kept only if it restores to each variable the
value that the original does; nothing of it is run.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from checkpoints.layout import META_SUFFIX, PREDICT_COLLECTION
from checkpoints.reader import CheckpointReader
from errors import ToolError, first_few, reason
from file_io import write_file
from metagraph.graph import attribute_of, reachable
from metagraph.importing import disarmed_graph
from metagraph.meta import MetaGraphFile, node_of, read_meta_graph, variable_definitions
from metagraph.model import read_model
from metagraph.session import describe_tensors, free_among
from metagraph.variables import (
    RESOURCE_VARIABLE,
    Part,
    Stored,
    Variable,
    checkpoint_keys,
    graph_variables,
    read_values,
    saver_keys,
)
from prediction import plan
from tools.command import Record
from tools.differences import compare
from tools.edit import EditConfig
from tools.editing import READING, Tensor

v1 = tf.compat.v1
# Groups of operations that a client runs after it has restored, as they fill tables.
_INITIALIZERS = ("table_initializer", "legacy_init_op", "saved_model_main_op", "serving_init_op")
# Of training: loops as gradients need them, queues, other savers.
_OF_TRAINING = ("cond_context", "while_context", "queue_runners", "savers")
_TABLE_FROM_CHECKPOINT = frozenset({"LookupTableImport", "LookupTableImportV2"})
_SHOWN = 5


def graph_maker(
    config: EditConfig, meta: MetaGraphFile, reader: CheckpointReader, tensors: Sequence[Tensor]
) -> Callable[[str], Record]:
    """Edits the graph; what it returns writes and checks it once the tensors are there."""
    with config.limit.over(READING):
        model = read_model(meta)
        known = () if config.fetch else model.outputs.values()
        outputs = [*dict.fromkeys([*plan.choose_fetches(meta, model, config.fetch), *known])]
        describe_tensors(meta, outputs)  # They can be imported.
        proto, kept = _edited(meta, reader, tensors, outputs)

    def make(prefix: str) -> Record:
        write_file(prefix + META_SUFFIX, proto.SerializeToString(deterministic=True))
        new = read_meta_graph(prefix + META_SUFFIX, config.max_meta_bytes)
        check_values(meta, new, kept)
        return {
            "file": meta.path,
            "nodes": len(new.nodes),
            "nodes_before": len(meta.nodes),
            "outputs": outputs,
            "restored": len(kept),
        }

    return make


# The new graph.


class Saved(NamedTuple):
    """A variable of the graph, the tensor it is restored from, and which part of that it is."""

    variable: Variable
    tensor: Tensor
    place: Stored

    @property
    def is_cast(self) -> bool:
        """Whether a `Cast` stands between the variable and the tensor: both are floating."""
        dtype, stored = self.variable.dtype, self.tensor.dtype
        return dtype != stored and dtype.is_floating and stored.is_floating


def _edited(
    meta: MetaGraphFile, old: CheckpointReader, tensors: Sequence[Tensor], outputs: Sequence[str]
) -> tuple[MetaGraphDef, list[Saved]]:
    """The graph that goes with the `tensors` of the `old` checkpoint, and what it restores.

    The file's own graph is left as it is. Raises CheckpointError where the graph is damaged,
    ToolError where one of the outputs, which have to stay, needs what is dropped, or the saver
    cannot be made anew.
    """
    by_key = {tensor.was: tensor for tensor in tensors}
    variables = {variable.name: variable for variable in graph_variables(meta)}
    places = checkpoint_keys(meta, variables, old.names)
    saved = [
        Saved(variables[name], by_key[place.key], place)
        for name, place in places.items()
        if place.key in by_key
    ]
    if not saved:
        raise ToolError("the graph has none of the variables that are kept: leave out --meta")
    kept = [each.variable.name for each in saved]
    # A variable that no checkpoint of this graph ever had, as no saver saves it, is not lost.
    named, held = saver_keys(meta), old.shapes
    lost = {n for n, place in places.items() if n in named or place.key in held}.difference(kept)
    for output in outputs:
        needed = sorted(reachable(meta, [node_of(output)]).intersection(lost))
        if needed:
            raise ToolError(
                f"{output} needs {first_few(needed, _SHOWN)}, which the new checkpoint would lack; "
                "--fetch names other outputs to keep, and without --meta only the variables are "
                "written"
            )
    stays = _what_stays(meta, kept, lost, outputs)
    proto = _pruned(meta, stays)
    if lost:
        for key in _OF_TRAINING:
            proto.collection_def.pop(key, None)
        # Where there is no other prediction, or a part of it is gone, the outputs are it.
        predicted = proto.collection_def[PREDICT_COLLECTION]
        if not predicted.node_list.value or predicted != meta.collection(PREDICT_COLLECTION):
            predicted.node_list.value[:] = outputs
    _add_saver(proto, meta, saved, free_among(stays, "save"))
    return proto, saved


def _what_stays(
    meta: MetaGraphFile, kept: Sequence[str], lost: set[str], outputs: Sequence[str]
) -> set[str]:
    """The nodes of the new graph: without the old saver and, where variables are lost, pruned."""
    saver_def = meta.proto.saver_def
    saver = reachable(meta, map(node_of, (saver_def.save_tensor_name, saver_def.restore_op_name)))
    table = next((n for n in saver if meta.nodes[n].op in _TABLE_FROM_CHECKPOINT), None)
    if table is not None:
        raise ToolError(
            f"{meta.path}: {table} fills a lookup table from the checkpoint, which no edited graph "
            "does: leave out --meta"
        )
    roots = {*map(node_of, outputs), *kept}
    if not lost:
        return reachable(meta, roots | (meta.nodes.keys() - saver))
    wanted = [
        node_of(name) for key in _INITIALIZERS for name in meta.collection(key).node_list.value
    ]
    for key in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, key):
            wanted += _nodes_of_variable(entry) if name in kept else []
    return reachable(meta, roots.union(n for n in wanted if not reachable(meta, [n]) & lost))


def _nodes_of_variable(entry: VariableDef) -> list[str]:
    """The nodes that an entry of a variable names; a client that imports it needs them all."""
    fields = ("variable_name", "initializer_name", "initial_value_name", "snapshot_name")
    names = [getattr(entry, field) for field in fields]
    return [node_of(name) for name in names if name]


def _pruned(meta: MetaGraphFile, stays: Collection[str]) -> MetaGraphDef:
    """A copy without all other nodes, and what names them: colocations, collections and so on."""
    gone = meta.nodes.keys() - stays
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    proto.graph_def.ClearField("node")
    proto.graph_def.node.extend(node for name, node in meta.nodes.items() if name in stays)
    for node in proto.graph_def.node:
        _leave_places(node, gone)
    for key in list(proto.collection_def):
        if not _left_of_collection(proto.collection_def[key], gone):
            del proto.collection_def[key]
    for key, signature in list(proto.signature_def.items()):
        for infos in (signature.inputs, signature.outputs):
            for name in [name for name, info in infos.items() if node_of(info.name) in gone]:
                del infos[name]
        if not signature.outputs:
            del proto.signature_def[key]
    assets = [a for a in meta.proto.asset_file_def if node_of(a.tensor_info.name) not in gone]
    proto.ClearField("asset_file_def")
    proto.asset_file_def.extend(assets)
    return proto


def _leave_places(node: NodeDef, gone: Collection[str]) -> None:
    """Takes out where a node is to be together with one that is gone."""
    texts = [text.decode(errors="replace") for text in attribute_of(node, "_class").list.s]
    node.attr.pop("_class", None)
    if left := [text.encode() for text in texts if text.removeprefix("loc:@") not in gone]:
        node.attr["_class"].list.s.extend(left)


def _left_of_collection(collection: CollectionDef, gone: Collection[str]) -> bool:
    """Takes out entries that name nodes which are gone; whether anything is left."""
    if collection.HasField("node_list"):
        nodes = collection.node_list.value
        nodes[:] = [text for text in nodes if node_of(text.removeprefix("^")) not in gone]
        return bool(nodes)
    if collection.HasField("bytes_list"):
        entries = collection.bytes_list.value
        entries[:] = [entry for entry in entries if not _is_lost(entry, gone)]
        return bool(entries)
    return True


def _is_lost(content: bytes, gone: Collection[str]) -> bool:
    """Whether an entry of a collection, which may be anything, is of a variable that is gone."""
    try:
        return any(name in gone for name in _nodes_of_variable(VariableDef.FromString(content)))
    except DecodeError:
        return False


def _add_saver(
    proto: MetaGraphDef, meta: MetaGraphFile, saved: Sequence[Saved], scope: str
) -> None:
    """Adds a saver to a copy of the file's graph, its nodes called as those of TensorFlow's own."""
    places = [(each.tensor.name, _slice_spec(each.place.part)) for each in saved]
    written = dict(zip(places, saved, strict=True))  # Of variables that share a place, one.
    graph = disarmed_graph(meta, [f"{each.variable.name}:0" for each in saved])
    try:
        with graph.as_default(), tf.name_scope(f"{scope}/"):
            default = v1.placeholder_with_default("model", [], "filename")
            file = v1.placeholder_with_default(default, [], "Const")
            save = tf.raw_ops.SaveV2(
                prefix=file,
                tensor_names=[name for name, _ in written],
                shape_and_slices=[part for _, part in written],
                tensors=[_read(graph, each) for each in written.values()],
            )
            with tf.control_dependencies([save]):
                done = tf.identity(file, "control_dependency")
            values = tf.raw_ops.RestoreV2(
                prefix=file,
                tensor_names=[name for name, _ in places],
                shape_and_slices=[part for _, part in places],
                dtypes=[each.tensor.dtype for each in saved],
            )
            assigned = [_assign(graph, *pair) for pair in zip(saved, values, strict=True)]
            restore = tf.group(*assigned, name="restore_all")
            made = v1.train.export_meta_graph(strip_default_attrs=True).graph_def.node
    except (TypeError, ValueError) as error:
        raise ToolError(f"{meta.path}: no saver can be made for it: {reason(error)}") from error
    proto.graph_def.node.extend(node for node in made if node.name.startswith(f"{scope}/"))
    saver_def = proto.saver_def
    saver_def.filename_tensor_name, saver_def.save_tensor_name = file.name, done.name
    saver_def.restore_op_name = restore.name
    saver_def.version, saver_def.sharded = SaverDef.V2, False


def _slice_spec(part: Part | None) -> str:
    """`10 4 0,5:0,4`: the full shape, then start and size in each dimension; all is empty."""
    if part is None:
        return ""
    return str(v1.Variable.SaveSliceInfo("", part.full_shape, part.starts, part.sizes).spec)


def _read(graph: tf.Graph, saved: Saved) -> tf.Tensor:
    value = graph.get_tensor_by_name(f"{saved.variable.name}:0")
    if value.op.type == RESOURCE_VARIABLE:
        value = tf.raw_ops.ReadVariableOp(resource=value, dtype=saved.variable.dtype)
    return tf.cast(value, saved.tensor.dtype) if saved.is_cast else value


def _assign(graph: tf.Graph, saved: Saved, value: tf.Tensor) -> tf.Operation:
    variable = graph.get_tensor_by_name(f"{saved.variable.name}:0")
    if saved.is_cast:
        value = tf.cast(value, saved.variable.dtype)
    if variable.op.type == RESOURCE_VARIABLE:
        return tf.raw_ops.AssignVariableOp(resource=variable, value=value)
    return tf.raw_ops.Assign(ref=variable, value=value, validate_shape=saved.variable.is_defined).op


# What the new graph restores.


def check_values(old: MetaGraphFile, new: MetaGraphFile, saved: Sequence[Saved]) -> None:
    """Reads each variable as the new saver has it, and as the old one: ToolError for another value.

    With a cast, it is the old value, rounded.
    """
    variables = [each.variable for each in saved]
    expected, found = read_values(old, variables), read_values(new, variables)
    for variable, tensor, _ in saved:
        value, dtype = expected[variable.name], tensor.dtype.as_numpy_dtype
        if tensor.dtype != tensor.was_dtype:
            value = value.astype(dtype).astype(value.dtype)
        if not compare(value, found[variable.name]).equal_bytes:
            raise ToolError(
                f"nothing is written, as {variable.name} would be restored with another value"
            )
