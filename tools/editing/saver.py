"""The operations of a meta graph that save and restore, made anew for what a new checkpoint holds.

A stock client restores by them, so they have to name what is there and nothing else. Whatever the
old ones were (of the format V1, sharded, one operation for each variable), the new ones are one
`SaveV2` and one `RestoreV2`; what takes the restored values, such as `Assign`, stays as it is.

Where a value is stored in another dtype than its variable has, a `Cast` stands between the two.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from checkpoints.loading.graph_view import View, attribute, data_inputs, source
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.saver_mapping import RESTORE_OPS
from checkpoints.loading.string_const import text_at
from checkpoints.loading.sub_graph import reachable
from tools.common.errors import ToolError
from tools.editing.references import SAVE_OPS
from tools.editing.saver_nodes import Scope, drop_saver, rewire


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


class Saver(NamedTuple):
    """What the saver of a file does.

    Attributes:
      saved: what it saves.
      restored: what it restores.
      nodes: its operations of these two kinds.
      saving: the nodes that saving stands on.
      restoring: likewise.
    """

    saved: Sequence[Piece]
    restored: Sequence[Piece]
    nodes: frozenset[str]
    saving: frozenset[str]
    restoring: frozenset[str]


def find_saver(meta: MetaGraphFile) -> Saver | None:
    """The saver that the file names; None where it names none.

    Raises:
      ToolError: its keys are no constants.
    """
    saver_def = meta.proto.saver_def
    save, restore = node_of(saver_def.save_tensor_name), node_of(saver_def.restore_op_name)
    if restore not in meta.nodes or save not in meta.nodes:
        return None
    view = View(meta.nodes)
    saving, restoring = (frozenset(reachable(meta, [root])) for root in (save, restore))
    saves = _of_ops(meta, saving, SAVE_OPS)
    restores = _of_ops(meta, restoring, RESTORE_OPS)
    before = [_before_cast(view, p) for node in saves for p in _saved(meta.path, view, node)]
    restored = [piece for node in restores for piece in _restored(meta.path, view, node)]
    casts = {
        text.removesuffix(":0"): node
        for node in _of_ops(meta, restoring, {"Cast"})
        for text in data_inputs(node)
    }
    return Saver(
        saved=[piece for piece, _ in before],
        restored=[_after_cast(casts, piece) for piece in restored],
        nodes=frozenset(
            [node.name for node in [*saves, *restores]]
            + [cast for _, cast in before if cast]
            + [casts[p.tensor].name for p in restored if p.tensor in casts]
        ),
        saving=saving,
        restoring=restoring,
    )


def _of_ops(meta: MetaGraphFile, names: Collection[str], ops: Collection[str]) -> list[NodeDef]:
    """Those of some nodes that are of these operations, in the file's order."""
    return [node for name, node in meta.nodes.items() if name in names and node.op in ops]


def _saved(path: str, view: View, node: NodeDef) -> Iterator[Piece]:
    """What one `Save*` operation saves: after its file, its keys and, but for `Save`, slices."""
    inputs = data_inputs(node)
    first = 2 if node.op == "Save" else 3
    dtypes = attribute(node, "dtypes" if node.op == "SaveV2" else "T").list.type
    for index, tensor in enumerate(inputs[first:]):
        key = _text(path, view, node, 1, index)
        part = _text(path, view, node, 2, index) if first == 3 else ""
        yield Piece(key, part, dtypes[index] if index < len(dtypes) else 0, tensor)


def _restored(path: str, view: View, node: NodeDef) -> Iterator[Piece]:
    """What one `Restore*` operation restores; of the format V1, a single tensor."""
    many = node.op == "RestoreV2"
    dtypes = attribute(node, "dtypes").list.type if many else [attribute(node, "dt").type]
    for index, dtype in enumerate(dtypes):
        key = _text(path, view, node, 1, index)
        part = "" if node.op == "Restore" else _text(path, view, node, 2, index)
        yield Piece(key, part, dtype, f"{node.name}:{index}" if index else node.name)


def _text(path: str, view: View, node: NodeDef, position: int, index: int) -> str:
    inputs = data_inputs(node)
    found = source(view, inputs[position]) if position < len(inputs) else None
    text = None if found is None else text_at(found.node, index)
    if text is None:
        raise ToolError(f"{path}: {node.name} has no constants for its keys: it cannot be edited")
    return text


def _before_cast(view: View, piece: Piece) -> tuple[Piece, str]:
    """What is saved as its variable has it, and the node that casts it; empty where none does."""
    node = view.nodes.get(piece.tensor)
    if node is None or node.op != "Cast" or len(node.input) != 1:
        return piece, ""
    dtype = attribute(node, "SrcT").type
    return piece._replace(tensor=node.input[0].removesuffix(":0"), dtype=dtype), node.name


def _after_cast(casts: Mapping[str, NodeDef], piece: Piece) -> Piece:
    """What is restored as its variable takes it."""
    node = casts.get(piece.tensor)
    if node is None:
        return piece
    return piece._replace(tensor=node.name, dtype=attribute(node, "DstT").type)


def is_present_format(meta: MetaGraphFile, saver: Saver) -> bool:
    """Whether a saver writes and reads the format that new checkpoints have."""
    ops = {meta.nodes[name].op for name in saver.nodes}
    return ops <= {"Cast", "SaveV2", "RestoreV2"}


def replace_saver(
    proto: MetaGraphDef, saver: Saver, keys: Collection[str], stored: Mapping[str, int]
) -> None:
    """Puts a new saver in place of the file's own.

    Args:
      proto: is changed. Its nodes may be fewer than when `saver` was found.
      saver: the old one.
      keys: those that the new checkpoint holds, by their old names.
      stored: the number of the dtype there of each of them.

    Raises:
      ToolError: it would restore nothing, or something else stands on the old one.
    """
    nodes = {node.name for node in proto.graph_def.node}
    restored = [piece for piece in saver.restored if piece.key in keys]
    saved = [p for p in saver.saved if p.key in keys and node_of(p.tensor) in nodes]
    if not restored or not saved:
        raise ToolError("the graph has none of the variables that are kept: leave out --meta")
    file = proto.saver_def.filename_tensor_name.removesuffix(":0")
    kept = {piece.tensor for piece in [*saved, *restored]}
    drop_saver(proto, saver.nodes, saver.saving, saver.restoring, kept)
    scope = Scope(proto, node_of(file).rpartition("/")[0])
    others = list(proto.graph_def.node)
    rewire(others, _add_restore(scope, file, restored, stored), saver.nodes)
    written = _add_save(scope, file, saved, stored)
    proto.saver_def.save_tensor_name = f"{written}:0"
    proto.saver_def.version = SaverDef.V2
    proto.saver_def.sharded = False


def _add_restore(
    scope: Scope, file: str, pieces: Sequence[Piece], stored: Mapping[str, int]
) -> dict[str, str]:
    """Adds what restores; returns what stands in place of each old tensor."""
    name = scope.free("RestoreV2")
    inputs = [
        file,
        scope.texts("RestoreV2/tensor_names", [piece.key for piece in pieces]),
        scope.texts("RestoreV2/shape_and_slices", [piece.part for piece in pieces]),
    ]
    node = scope.add(name, "RestoreV2", inputs)
    node.attr["dtypes"].list.type.extend(stored[piece.key] for piece in pieces)
    outputs = {}
    for index, piece in enumerate(pieces):
        tensor = f"{name}:{index}" if index else name
        cast = f"RestoreV2/cast_{index}"
        outputs[piece.tensor] = scope.cast(cast, tensor, stored[piece.key], piece.dtype)
    return outputs


def _add_save(scope: Scope, file: str, pieces: Sequence[Piece], stored: Mapping[str, int]) -> str:
    """Adds what saves; returns the node that gives the file's name when it is done."""
    inputs = [
        file,
        scope.texts("SaveV2/tensor_names", [piece.key for piece in pieces]),
        scope.texts("SaveV2/shape_and_slices", [piece.part for piece in pieces]),
    ]
    for index, piece in enumerate(pieces):
        cast = f"SaveV2/cast_{index}"
        inputs.append(scope.cast(cast, piece.tensor, piece.dtype, stored[piece.key]))
    save = scope.add(scope.free("SaveV2"), "SaveV2", inputs)
    save.attr["dtypes"].list.type.extend(stored[piece.key] for piece in pieces)
    done = scope.add(scope.free("control_dependency"), "Identity", [file, f"^{save.name}"])
    done.attr["T"].type = tf.string.as_datatype_enum
    done.attr["_class"].list.s.append(f"loc:@{file}".encode())
    return str(done.name)
