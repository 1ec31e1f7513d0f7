"""The operations of a meta graph that save and restore, made anew for a new checkpoint."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from errors import ToolError
from metagraph.graph import View, attribute_of, data_inputs, reachable, source, text_at
from metagraph.meta import MetaGraphFile, node_of
from metagraph.variables import RESTORE_OPS
from tools.edit_names import SAVE_OPS

# What stands between what saves or restores and its file's name, or what says that it is done.
_PLUMBING = frozenset(
    {
        "Const",
        "Identity",
        "MergeV2Checkpoints",
        "NoOp",
        "Pack",
        "ShardedFilename",
        "ShardedFilespec",
        "StringJoin",
    }
)


class Scope:
    """Adds nodes under one scope of a graph, under names that are free."""

    def __init__(self, proto: MetaGraphDef, scope: str) -> None:
        self._graph_def = proto.graph_def
        self._scope = f"{scope}/" if scope else ""
        self._taken = {node.name for node in proto.graph_def.node}

    def free(self, name: str) -> str:
        """A name of the scope that no node has."""
        full = self._scope + name
        while full in self._taken:
            full += "_"
        return full

    def add(self, name: str, op: str, inputs: Sequence[str]) -> NodeDef:
        """Adds a node of a `free` name; its attributes are left to the caller."""
        self._taken.add(name)
        return self._graph_def.node.add(name=name, op=op, input=inputs)

    def texts(self, name: str, values: Sequence[str]) -> str:
        """Adds a constant of texts and returns its name."""
        node = self.add(self.free(name), "Const", [])
        node.attr["dtype"].type = tf.string.as_datatype_enum
        tensor = tf.make_tensor_proto([value.encode() for value in values], tf.string)
        node.attr["value"].tensor.CopyFrom(tensor)
        return str(node.name)

    def cast(self, name: str, tensor: str, old: int, new: int) -> str:
        """The tensor in another dtype; itself where it has that."""
        if old == new:
            return tensor
        node = self.add(self.free(name), "Cast", [tensor])
        node.attr["SrcT"].type, node.attr["DstT"].type = old, new
        return str(node.name)


def rewire(nodes: Iterable[NodeDef], tensors: Mapping[str, str], gone: Collection[str]) -> None:
    """Puts new tensors in place of old ones in the inputs of some nodes.

    Args:
      nodes: are changed.
      tensors: old -> new, as they stand in an input: `name`, or `name:1`.
      gone: nodes that are no longer there, or others by now.

    Raises:
      ToolError: one takes another tensor of theirs.
    """
    for node in nodes:
        old = [text.removesuffix(":0") for text in node.input]
        lost = next((text for text in old if node_of(text) in gone and text not in tensors), None)
        if lost is not None:
            raise ToolError(f"{node.name} takes {lost} of the saver, which has to go")
        if not tensors.keys().isdisjoint(old):
            node.input[:] = [tensors.get(text, text) for text in old]


def drop_nodes(proto: MetaGraphDef, gone: Collection[str]) -> None:
    """Takes nodes out of the graph, and out of what others wait for."""
    nodes = proto.graph_def.node
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.name in gone:
            del nodes[index]
        elif any(text.startswith("^") and text[1:] in gone for text in node.input):
            node.input[:] = [t for t in node.input if not (t.startswith("^") and t[1:] in gone)]


def drop_saver(
    proto: MetaGraphDef,
    old: Collection[str],
    saving: Collection[str],
    restoring: Collection[str],
    kept: Collection[str],
) -> None:
    """Takes out an old saver, but for what gives or takes the tensors that are kept.

    Args:
      proto: is changed.
      old: the operations that save and restore.
      saving: the nodes that saving stands on.
      restoring: likewise.
      kept: tensors that are still saved or restored, as they stand in an input; the latter are
        left there, for `rewire`.
    """
    nodes = {node.name: node for node in proto.graph_def.node}
    gone, size = set(old), 0
    while len(gone) > size:
        size = len(gone)
        gone |= {n for n in saving if _is_plumbing(nodes, n) and _stands_on(nodes[n], gone)}
        gone |= {n for n in restoring if n in nodes and _takes_gone(nodes[n], gone, old, kept)}
    given = {node_of(text) for text in (proto.saver_def.filename_tensor_name, *kept)}
    drop_nodes(proto, gone | _only_for(nodes, gone, {*saving, *restoring} - given))


def _is_plumbing(nodes: Mapping[str, NodeDef], name: str) -> bool:
    return name in nodes and nodes[name].op in _PLUMBING


def _stands_on(node: NodeDef, gone: Collection[str]) -> bool:
    return any(node_of(text.removeprefix("^")) in gone for text in node.input)


def _takes_gone(
    node: NodeDef, gone: Collection[str], old: Collection[str], kept: Collection[str]
) -> bool:
    """Whether a node takes a restored tensor that is not kept, or what has gone with one."""
    return any(
        node_of(text) in gone and not (node_of(text) in old and text.removesuffix(":0") in kept)
        for text in data_inputs(node)
    )


def _only_for(
    nodes: Mapping[str, NodeDef], gone: Collection[str], candidates: Collection[str]
) -> set[str]:
    """The plumbing that only nodes which are gone have taken, such as their constants."""
    takers: dict[str, set[str]] = {}
    for node in nodes.values():
        for text in node.input:
            takers.setdefault(node_of(text.removeprefix("^")), set()).add(node.name)
    left = {name for name in candidates if name in takers and _is_plumbing(nodes, name)}
    found, size = set[str](), -1
    while len(found) > size:
        size = len(found)
        found |= {name for name in left if all(t in gone or t in found for t in takers[name])}
    return found


# The operations of a meta graph that save and restore, made anew for what a new checkpoint holds.
#
# A stock client restores by them, so they have to name what is there and nothing else. Whatever the
# old ones were (of the format V1, sharded, one operation for each variable), the new ones are one
# `SaveV2` and one `RestoreV2`; what takes the restored values, such as `Assign`, stays as it is.
#
# Where a value is stored in another dtype than its variable has, a `Cast` stands between the two.


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
    dtypes = attribute_of(node, "dtypes" if node.op == "SaveV2" else "T").list.type
    for index, tensor in enumerate(inputs[first:]):
        key = _text(path, view, node, 1, index)
        part = _text(path, view, node, 2, index) if first == 3 else ""
        yield Piece(key, part, dtypes[index] if index < len(dtypes) else 0, tensor)


def _restored(path: str, view: View, node: NodeDef) -> Iterator[Piece]:
    """What one `Restore*` operation restores; of the format V1, a single tensor."""
    many = node.op == "RestoreV2"
    dtypes = attribute_of(node, "dtypes").list.type if many else [attribute_of(node, "dt").type]
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
    dtype = attribute_of(node, "SrcT").type
    return piece._replace(tensor=node.input[0].removesuffix(":0"), dtype=dtype), node.name


def _after_cast(casts: Mapping[str, NodeDef], piece: Piece) -> Piece:
    """What is restored as its variable takes it."""
    node = casts.get(piece.tensor)
    if node is None:
        return piece
    return piece._replace(tensor=node.name, dtype=attribute_of(node, "DstT").type)


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
