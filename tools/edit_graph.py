"""The graph that goes with an edited checkpoint: what predicts and restores, under its own names.

Its saver is made anew, as a stock client restores by it: it has to name what the new checkpoint
holds, and nothing else. Whatever the old one was (of the format V1, sharded, one operation for each
variable), the new one is one `SaveV2` and one `RestoreV2`; what takes the restored values, such as
`Assign`, stays. Where a value is stored in another dtype than its variable has, a `Cast` stands
between the two. Where variables are gone, so is all that no output needs: gradients, slots,
summaries, pipelines.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from checkpoints.naming import PREDICT_COLLECTION
from errors import ToolError, first_few
from metagraph.graph import View, attribute_of, data_inputs, reachable, source, text_at
from metagraph.meta import MetaGraphFile, node_of, variable_definitions
from metagraph.values import free_scope
from metagraph.variables import RESTORE_OPS, checkpoint_keys, graph_variables, saver_keys
from tools.edit_files import Tensor

_SAVE_OPS = frozenset({"Save", "SaveSlices", "SaveV2"})
# Groups of operations that a client runs after it has restored, as they fill tables.
_INITIALIZERS = ("table_initializer", "legacy_init_op", "saved_model_main_op", "serving_init_op")
# Of training: loops as gradients need them, queues, other savers.
_OF_TRAINING = ("cond_context", "while_context", "queue_runners", "savers")
_SHOWN = 5


class Piece(NamedTuple):
    """A tensor that a saver saves, or restores.

    Attributes:
      key: in the checkpoint.
      part: the slice of it as `SaveV2` has it; empty for all.
      dtype: the number of the dtype that the graph has it in.
      tensor: what is saved, or what is restored: `save/RestoreV2:3`.
    """

    key: str
    part: str
    dtype: int
    tensor: str


def edit_graph(
    meta: MetaGraphFile, held: Sequence[str], tensors: Sequence[Tensor], outputs: Sequence[str]
) -> MetaGraphDef:
    """The graph that goes with the new checkpoint; the file's own is left as it is.

    Args:
      meta: the file.
      held: all keys of the old checkpoint.
      tensors: those that the new one has.
      outputs: what has to stay where the graph is pruned.

    Raises:
      CheckpointError: the graph is damaged.
      ToolError: an output needs what is dropped, or the saver cannot be made anew.
    """
    by_key = {tensor.old: tensor for tensor in tensors}
    removed, kept = _divide(meta, held, by_key)
    _check_outputs(meta, outputs, removed)
    edited = replace(meta, proto=MetaGraphDef())
    edited.proto.CopyFrom(meta.proto)
    saver_def = edited.proto.saver_def
    saver = {node_of(saver_def.save_tensor_name), node_of(saver_def.restore_op_name)}
    roots, gone = {*map(node_of, outputs), *kept}, set(removed)
    if saver <= meta.nodes.keys():
        gone |= _replace_saver(meta, edited.proto, by_key)
        roots |= {node_of(saver_def.save_tensor_name), node_of(saver_def.restore_op_name)}
    elif any(tensor.new != tensor.old or tensor.stored != tensor.dtype for tensor in tensors):
        raise ToolError(
            f"{meta.path} has no saver, which would have to restore other names or dtypes: leave "
            "out --meta, or what changes them"
        )
    if removed:
        roots |= {*_wanted(meta, kept)} - _above(edited.nodes, gone)
    else:
        roots |= meta.nodes.keys() - reachable(meta, saver)
    stays = reachable(edited, roots)
    if stays & gone:
        raise ToolError(
            f"{meta.path} needs {min(stays & gone)}, which goes with its saver: leave out --meta"
        )
    _keep_only(edited.proto, meta.nodes.keys() - stays)
    if removed:
        _leave_training(edited.proto, meta, outputs)
    return edited.proto


def _check_outputs(meta: MetaGraphFile, outputs: Sequence[str], removed: set[str]) -> None:
    for output in outputs:
        lost = sorted(reachable(meta, [node_of(output)]) & removed)
        if lost:
            raise ToolError(
                f"{output} needs {first_few(lost, _SHOWN)}, which the new checkpoint would lack; "
                "--fetch names other outputs to keep, and without --meta only the variables are "
                "written"
            )


def _divide(
    meta: MetaGraphFile, held: Sequence[str], kept: Collection[str]
) -> tuple[set[str], set[str]]:
    """The variables of the graph that the new checkpoint lacks, and those that it has.

    What no checkpoint of this graph ever had, as no saver saves it, is neither.
    """
    variables = [variable.name for variable in graph_variables(meta)]
    places = checkpoint_keys(meta, variables, held)
    saved = saver_keys(meta)
    has = {name for name in variables if places[name].key in kept}
    lacks = {n for n in variables if n not in has and (n in saved or places[n].key in held)}
    return lacks, has


def _wanted(meta: MetaGraphFile, kept: Collection[str]) -> Iterator[str]:
    """Nodes that stay unless they need a variable that does not."""
    for key in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, key):
            if name in kept:
                yield from _nodes_of_variable(entry)
    for key in _INITIALIZERS:
        yield from map(node_of, meta.collection(key).node_list.value)
    for signature in meta.proto.signature_def.values():
        yield from (node_of(info.name) for info in signature.inputs.values())
    yield from (node_of(asset.tensor_info.name) for asset in meta.proto.asset_file_def)


def _nodes_of_variable(entry: VariableDef) -> list[str]:
    """The nodes that an entry of a variable names; a client that imports it needs them all."""
    names = (
        entry.variable_name,
        entry.initializer_name,
        entry.initial_value_name,
        entry.snapshot_name,
    )
    return [node_of(name) for name in names if name]


def _above(nodes: Mapping[str, NodeDef], start: Collection[str]) -> set[str]:
    """The nodes that stand on some, which are included."""
    takers: dict[str, list[str]] = {}
    for node in nodes.values():
        for text in node.input:
            takers.setdefault(node_of(text.removeprefix("^")), []).append(node.name)
    found, waiting = set[str](), [*start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += takers.get(name, ())
    return found


def _keep_only(proto: MetaGraphDef, gone: Collection[str]) -> None:
    """Takes out some nodes, and what names them: colocations, collections, signatures, assets."""
    nodes = [node for node in proto.graph_def.node if node.name not in gone]
    for node in nodes:
        _leave_places(node, gone)
    _replace(proto.graph_def.node, nodes)
    for key in list(proto.collection_def):
        if not _left_of_collection(proto.collection_def[key], gone):
            del proto.collection_def[key]
    for key, signature in list(proto.signature_def.items()):
        for infos in (signature.inputs, signature.outputs):
            for name in [name for name, info in infos.items() if node_of(info.name) in gone]:
                del infos[name]
        if not signature.outputs:
            del proto.signature_def[key]
    assets = [a for a in proto.asset_file_def if node_of(a.tensor_info.name) not in gone]
    _replace(proto.asset_file_def, assets)


def _leave_places(node: NodeDef, gone: Collection[str]) -> None:
    """Takes out where a node is to be together with one that is gone."""
    if "_class" in node.attr:
        places = node.attr["_class"].list.s
        texts = [place.decode(errors="replace") for place in places]
        places[:] = [text.encode() for text in texts if text.removeprefix("loc:@") not in gone]
        if not places:
            del node.attr["_class"]


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
        entry = VariableDef.FromString(content)
    except DecodeError:
        return False
    return any(name in gone for name in _nodes_of_variable(entry))


def _leave_training(proto: MetaGraphDef, meta: MetaGraphFile, outputs: Sequence[str]) -> None:
    """Takes out what only training needs; the outputs are the prediction, if there is no other."""
    for key in _OF_TRAINING:
        proto.collection_def.pop(key, None)
    predicted = proto.collection_def[PREDICT_COLLECTION]
    if not predicted.node_list.value or predicted != meta.collection(PREDICT_COLLECTION):
        predicted.node_list.value[:] = outputs


def _replace(field: Any, values: Sequence[Any]) -> None:
    """Puts some of a repeated field's own messages in place of all."""
    copies = [*map(deepcopy, values)]
    del field[:]
    field.extend(copies)


def _replace_saver(
    meta: MetaGraphFile, proto: MetaGraphDef, kept: Mapping[str, Tensor]
) -> set[str]:
    """Puts a new saver in place of the file's own, whose nodes are left for `_keep_only`.

    Args:
      meta: the file.
      proto: a copy of its MetaGraphDef, which is changed.
      kept: the tensors of the new checkpoint, by their old keys.

    Returns:
      The nodes that must not stay: what saved and restored, and what took a value that is dropped.

    Raises:
      ToolError: its keys are no constants, or it would restore nothing.
    """
    saver_def = proto.saver_def
    save, restore = node_of(saver_def.save_tensor_name), node_of(saver_def.restore_op_name)
    restoring = reachable(meta, [restore])
    saves = [meta.nodes[n] for n in reachable(meta, [save]) if meta.nodes[n].op in _SAVE_OPS]
    restores = [meta.nodes[n] for n in restoring if meta.nodes[n].op in RESTORE_OPS]
    old = {node.name for node in [*saves, *restores]}
    saved, restored = (
        sorted(piece for node in nodes for piece in _pieces(meta, node) if piece.key in kept)
        for nodes in (saves, restores)
    )
    if not restored or not saved:
        raise ToolError("the graph has none of the variables that are kept: leave out --meta")
    nodes = {node.name: node for node in proto.graph_def.node}
    adding = _Saver(proto, free_scope(meta, "save"), kept)
    new = adding.restore(restored, [node for node in nodes.values() if node.name in restoring])
    for name in nodes.keys() - old:
        inputs = nodes[name].input
        inputs[:] = [new.get(text.removesuffix(":0"), text) for text in inputs]
    lost, size = {*old}, 0
    while len(lost) > size:
        size = len(lost)
        takers = ((n, map(node_of, data_inputs(nodes[n]))) for n in restoring)
        lost |= {name for name, taken in takers if not lost.isdisjoint(taken)}
    for name in restoring - lost:
        inputs = nodes[name].input
        inputs[:] = [text for text in inputs if text.removeprefix("^") not in lost]
    saver_def.save_tensor_name = adding.save(saved, nodes)
    saver_def.version, saver_def.sharded = SaverDef.V2, False
    return lost


def _pieces(meta: MetaGraphFile, node: NodeDef) -> Iterator[Piece]:
    """What an operation saves or restores: after its file, it takes keys and, mostly, slices.

    Operations: `tensorflow/core/ops/io_ops.cc`.
    """
    inputs, slices = data_inputs(node), node.op not in ("Save", "Restore")
    if node.op in _SAVE_OPS:
        dtypes = attribute_of(node, "dtypes" if node.op == "SaveV2" else "T").list.type
        tensors = inputs[3 if slices else 2 :]
    else:
        many = attribute_of(node, "dtypes").list.type
        dtypes = many if node.op == "RestoreV2" else [attribute_of(node, "dt").type]
        tensors = [f"{node.name}:{index}" if index else node.name for index in range(len(dtypes))]
    for index, (dtype, tensor) in enumerate(zip(dtypes, tensors, strict=False)):
        texts = []
        for place in (1, 2)[: 1 + slices]:
            found = source(View(meta.nodes), inputs[place]) if place < len(inputs) else None
            text = None if found is None else text_at(found.node, index)
            if text is None:
                raise ToolError(
                    f"{meta.path}: {node.name} has no constants for its keys: it cannot be edited"
                )
            texts.append(text)
        yield Piece(texts[0], texts[1] if slices else "", dtype, tensor.removesuffix(":0"))


class _Saver:
    """Adds the operations of a saver to a graph, in a scope of their own."""

    def __init__(self, proto: MetaGraphDef, scope: str, kept: Mapping[str, Tensor]) -> None:
        self._graph_def, self._scope, self._kept = proto.graph_def, scope, kept
        self._file = proto.saver_def.filename_tensor_name.removesuffix(":0")

    def restore(self, pieces: Sequence[Piece], takers: Sequence[NodeDef]) -> dict[str, str]:
        """Adds what restores; returns what stands in place of each old tensor."""
        name = self._add("RestoreV2", pieces, [])
        by_input: dict[str, list[NodeDef]] = {}
        for node in takers:
            for text in data_inputs(node):
                by_input.setdefault(text.removesuffix(":0"), []).append(node)
        new = {}
        for index, piece in enumerate(pieces):
            restored, stored = (f"{name}:{index}" if index else name), self._stored(piece)
            casts = by_input.get(piece.tensor)
            if casts and all(node.op == "Cast" for node in casts):  # It was edited before.
                for node in casts:
                    node.attr["SrcT"].type = stored
                new[piece.tensor] = restored
            else:
                new[piece.tensor] = self._cast(f"restored_{index}", restored, stored, piece.dtype)
        return new

    def save(self, pieces: Sequence[Piece], nodes: Mapping[str, NodeDef]) -> str:
        """Adds what saves; returns the tensor of the file's name when that is done."""
        tensors = []
        for index, piece in enumerate(pieces):
            tensor, dtype, node = piece.tensor, piece.dtype, nodes.get(piece.tensor)
            if node is not None and node.op == "Cast" and node.input:  # It was edited before.
                tensor, dtype = node.input[0], node.attr["SrcT"].type
            tensors.append(self._cast(f"saved_{index}", tensor, dtype, self._stored(piece)))
        name = f"{self._scope}/control_dependency"
        save = self._add("SaveV2", pieces, tensors)
        done = self._graph_def.node.add(name=name, op="Identity", input=[self._file, f"^{save}"])
        done.attr["T"].type = DT_STRING
        return f"{name}:0"

    def _add(self, op: str, pieces: Sequence[Piece], tensors: Sequence[str]) -> str:
        name = f"{self._scope}/{op}"
        keys = [self._kept[piece.key].new for piece in pieces]
        inputs = [self._file, *tensors]
        for place, (what, texts) in enumerate(
            {"tensor_names": keys, "shape_and_slices": [p.part for p in pieces]}.items(), 1
        ):
            constant = self._graph_def.node.add(name=f"{name}/{what}", op="Const")
            constant.attr["dtype"].type = DT_STRING
            value = tf.make_tensor_proto([text.encode() for text in texts], tf.string)
            constant.attr["value"].tensor.CopyFrom(value)
            inputs.insert(place, constant.name)
        node = self._graph_def.node.add(name=name, op=op, input=inputs)
        node.attr["dtypes"].list.type.extend(map(self._stored, pieces))
        return name

    def _cast(self, name: str, tensor: str, old: int, new: int) -> str:
        """The tensor in another dtype; itself where it has that."""
        if old == new:
            return tensor
        full = f"{self._scope}/{name}"
        node = self._graph_def.node.add(name=full, op="Cast", input=[tensor])
        node.attr["SrcT"].type, node.attr["DstT"].type = old, new
        return full

    def _stored(self, piece: Piece) -> int:
        return int(self._kept[piece.key].stored.as_datatype_enum)
