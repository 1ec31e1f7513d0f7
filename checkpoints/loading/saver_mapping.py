"""Where in a checkpoint the value of each variable is, by the saver of the graph itself.

A Saver may store a variable under any name (one built from a dict, for moving averages) and as a
slice of a larger tensor (partitioned variables). What it does stands in its restore operations,
which are read here as data and never run:

  Assign(variable, [Identity, Reshape or Cast of] RestoreV2(prefix, names, slices):k)
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from checkpoints.loading.graph_view import Output, View, attribute, data_inputs, source, views
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.string_const import text_at
from checkpoints.loading.sub_graph import reachable
from checkpoints.loading.variable_definitions import variable_definitions

ASSIGN_OPS = frozenset({"Assign", "AssignVariableOp"})
RESTORE_OPS = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_CAST = "Cast"
OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # Of the keys that tf.train.Checkpoint writes.

_SLICE_SPEC = re.compile(r"\d{1,18}( \d{1,18})* (-|\d{1,18},\d{1,18})(:(-|\d{1,18},\d{1,18}))*")


class Part(NamedTuple):
    """A slice of a tensor.

    Attributes:
      full_shape: of the tensor.
      starts: of the slice, in each dimension.
      sizes: likewise.
    """

    full_shape: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]


class Stored(NamedTuple):
    """Where a value is in a checkpoint.

    Attributes:
      key: of the tensor.
      part: the slice of it; None for all of it.
      reshaped: whether the saver gives it the variable's shape, whatever its own.
      cast: whether the saver gives it the variable's dtype, whatever its own.
    """

    key: str
    part: Part | None = None
    reshaped: bool = False
    cast: bool = False


def checkpoint_keys(
    meta: MetaGraphFile, variables: Collection[str], held: Collection[str]
) -> dict[str, Stored]:
    """Where the values of variables are.

    What the file's saver says goes before all; what it says of a variable holds even where the
    checkpoint lacks the key, as another value would be the wrong one. Of a variable that it does
    not name, the first of these that the checkpoint holds: its own name, its shared name, the
    name of an object-based checkpoint, its slice of a partitioned variable, and what all other
    restore operations of the graph agree on.

    Args:
      meta: the file.
      variables: the names of nodes of it.
      held: the keys of the checkpoint.

    Returns:
      Variable -> place; where the checkpoint holds none of them, the variable's own name.
    """
    own, others = _own_and_others(meta)
    missing = [name for name in variables if name not in own]
    parts = _parts(meta) if any(name not in held for name in missing) else {}
    keys = {name: own[name] for name in variables if name in own}
    for name in missing:
        candidates = [*_own_names(meta, name)]
        candidates += [parts[name]] if name in parts else []
        candidates += others.get(name, [])
        found = (stored for stored in candidates if stored.key in held)
        keys[name] = next(found, candidates[0])
    return keys


def saver_keys(meta: MetaGraphFile) -> dict[str, Stored]:
    """The variables that the file's saver stores, each with its place; no other variable."""
    return _own_and_others(meta)[0]


def stored_source(view: View, text: str) -> Stored | None:
    """Where in a checkpoint a node's input is restored from; None where it is not, or damaged."""
    value = source(view, text)
    if value is None or value.node.op != _CAST or not data_inputs(value.node):
        return None if value is None else _restored(value)
    before = source(value.view, data_inputs(value.node)[0])
    stored = None if before is None else _restored(before)
    return stored and stored._replace(cast=True, reshaped=stored.reshaped or value.reshaped)


def _own_and_others(meta: MetaGraphFile) -> tuple[dict[str, Stored], dict[str, list[Stored]]]:
    """As `_saver_mappings`; where no saver is named, what all restore operations agree on is it."""
    own, others = _saver_mappings(meta)
    if not own and others:
        own = {name: found[0] for name, found in others.items() if len(found) == 1}
    return own, others


def _saver_mappings(meta: MetaGraphFile) -> tuple[dict[str, Stored], dict[str, list[Stored]]]:
    """Variable -> place, by the file's saver, and by any other restore operation of the graph."""
    saver = _saver_nodes(meta)
    own: dict[str, Stored] = {}
    others: dict[str, list[Stored]] = {}
    for root, variable, stored in _assignments(meta):
        if root in saver:
            own.setdefault(variable, stored)
        elif stored not in others.setdefault(variable, []):
            others[variable].append(stored)
    return own, others


def _saver_nodes(meta: MetaGraphFile) -> Collection[str]:
    """The nodes that the file's saver would run to restore."""
    node = node_of(meta.proto.saver_def.restore_op_name)
    return reachable(meta, [node]) if node in meta.nodes else ()


def _assignments(meta: MetaGraphFile) -> Iterator[tuple[str, str, Stored]]:
    """What is restored: the node of the graph that it runs in, the variable, the place."""
    for view in views(meta, RESTORE_OPS):
        for node in view.nodes.values():
            inputs = data_inputs(node) if node.op in ASSIGN_OPS else []
            stored = stored_source(view, inputs[1]) if len(inputs) == 2 else None
            variable = source(view, inputs[0]) if stored else None
            if stored and variable and variable.view.caller is None:
                yield view.root_of(node), variable.node.name, stored


def _restored(value: Output) -> Stored | None:
    """The place that a restore operation's output is read from."""
    inputs = data_inputs(value.node)
    if value.node.op not in RESTORE_OPS or len(inputs) < 2:
        return None
    key = _text(value, inputs[1])
    spec = _text(value, inputs[2]) if len(inputs) > 2 else ""
    part = _part(spec) if spec else None
    if not key or spec is None or (spec and part is None):
        return None
    return Stored(key, part, value.reshaped)


def _text(value: Output, text: str) -> str | None:
    """The text of an input of a restore operation that belongs to its output."""
    constant = source(value.view, text)
    return None if constant is None else text_at(constant.node, value.position)


def _part(spec: str) -> Part | None:
    """Parses `10 4 0,5:-`: the full shape, then start and size in each dimension, `-` for all.

    Format: `TensorShape` and `TensorSlice` in `tensorflow/core/util/saved_tensor_slice_util.cc`.
    """
    if not _SLICE_SPEC.fullmatch(spec):
        return None
    *shape_texts, slices = spec.split(" ")
    shape = tuple(int(size) for size in shape_texts)
    extents = slices.split(":")
    if len(extents) != len(shape):
        return None
    pairs = [
        (0, full) if extent == "-" else tuple(int(number) for number in extent.split(","))
        for extent, full in zip(extents, shape, strict=True)
    ]
    return _checked_part(shape, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _checked_part(shape: Sequence[int], starts: Sequence[int], sizes: Sequence[int]) -> Part | None:
    """The slice; None where it is not inside of the tensor."""
    if not len(shape) == len(starts) == len(sizes) or min([*starts, *sizes], default=0) < 0:
        return None
    extents = zip(starts, sizes, shape, strict=True)
    if any(start + size > full for start, size, full in extents):
        return None
    return Part(tuple(shape), tuple(starts), tuple(sizes))


def _own_names(meta: MetaGraphFile, variable: str) -> Iterator[Stored]:
    """A variable's own names, its node's first."""
    shared_name = attribute(meta.nodes[variable], "shared_name").s
    shared = shared_name.decode("utf-8", errors="replace")
    for name in dict.fromkeys([variable, shared or variable]):
        yield Stored(name)
    for name in dict.fromkeys([variable, shared or variable]):
        yield Stored(name + OBJECT_SUFFIX)


def _parts(meta: MetaGraphFile) -> Mapping[str, Stored]:
    """Variable -> its slice of a partitioned one, as the graph's collections have it."""
    parts = {}
    for collection in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, collection):
            info = entry.save_slice_info_def
            part = _checked_part(info.full_shape, info.var_offset, info.var_shape)
            if info.full_name and part is not None:
                parts[name] = Stored(info.full_name, part)
    return parts
