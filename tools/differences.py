"""What differs between two models: of their variables by value, of their graphs as data.

Each side has variables, or a graph, or both. Of variables, a pair of arrays is read at a time. Of
graphs nothing is imported.

Formats: `tensorflow/core/framework/{attr_value,node_def,tensor}.proto`.
"""

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, SignatureDef

import file_io
from checkpoints import layout
from checkpoints.bundle import VARIANT
from checkpoints.folder import explain_if_gone, find_variables, graph_path
from checkpoints.layout import verify_checkpoint
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, ToolError
from metagraph.description import as_numpy_dtype, constant, json_value
from metagraph.meta import MetaGraphFile
from metagraph.opening import GRAPH_SUFFIXES, open_model
from metagraph.safety import op_definitions
from tools.command import Record
from tools.diff import DTYPE, EQUAL, GRAPH, ONLY_A, ONLY_B, SHAPE, VALUES, VARIABLES, DiffConfig
from tools.graph_parts import attribute_text
from tools.inspecting import is_folder, named_entry

_PIECE = 1 << 15  # Elements: what is worked out of them at once stays in a processor's cache.
_MAX_ELEMENTS = 1 << 22  # Of a constant that is unpacked: a few bytes may stand for any number.
_LONGEST = 60  # Characters of a value.
_INFERRED = "_output_shapes"  # TensorFlow wrote it down; it follows from the rest.
_Changes = Callable[[Any, Any], Iterator[str]]


class Difference(NamedTuple):
    """How two arrays differ; strings have no distance, which is None."""

    equal_bytes: bool  # Whether they are the same in memory; of strings, whether all are equal.
    differing: int  # Elements that are further apart than the tolerance, or one of them a NaN.
    # Infinite where an element is NaN or infinite on one side only.
    largest: int | float | None  # |a - b|, exact for integers.
    relative: float | None  # |a - b| / max(|a|, |b|), 0 to 2.
    equal_nans: int  # Places where both are NaN, which counts as equal.


def compare(a: Array, b: Array, tolerance: float = 0.0) -> Difference:
    """Compares two arrays of one shape, of whatever dtypes."""
    a, b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    if "O" in (a.dtype.kind, b.dtype.kind):
        differing = int(np.count_nonzero(a != b))
        return Difference(differing == 0, differing, None, None, 0)
    pieces = [
        _compare_piece(a[start : start + _PIECE], b[start : start + _PIECE], tolerance)
        for start in range(0, max(a.size, 1), _PIECE)
    ]
    equal, counts, largest, relative, nans = zip(*pieces, strict=True)
    return Difference(all(equal), sum(counts), max(largest), max(relative), sum(nans))


def _compare_piece(a: Array, b: Array, tolerance: float) -> tuple[bool, int, float, float, int]:
    """The values of a `Difference`."""
    equal_bytes = a.dtype == b.dtype and a.tobytes() == b.tobytes()
    a, b = as_numpy_dtype(a), as_numpy_dtype(b)
    common = np.result_type(a, b)
    both_nan = np.zeros(a.shape, bool)
    if common.kind in "biu":
        a, b = a.astype(common), b.astype(common)
        # Two's complement: what wraps around is the true distance, from the smaller to the larger.
        distance = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
        sizes = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
        relative = distance / np.where(sizes == 0, 1.0, sizes)
    else:
        wide = np.complex128 if common.kind == "c" else np.float64
        a, b = a.astype(wide), b.astype(wide)
        both_nan = np.isnan(a) & np.isnan(b)
        same = (a == b) | both_nan
        endless = ~same & ~(np.isfinite(a) & np.isfinite(b))
        with np.errstate(all="ignore"):
            sizes = np.maximum(np.abs(a), np.abs(b))
            distance, relative = np.abs(a - b), np.abs(a / sizes - b / sizes)
        for found in (distance, relative):
            found[endless] = np.inf
            found[same] = 0.0
    differing, nans = int(np.count_nonzero(distance > tolerance)), int(np.count_nonzero(both_nan))
    largest, relative = (found.max(initial=0).item() for found in (distance, relative))
    return equal_bytes, differing, largest, relative, nans


def compare_variables(
    a: CheckpointReader, b: CheckpointReader, pattern: re.Pattern[str], tolerance: float
) -> list[Record]:
    """Compares the variables in whose names a pattern is found, by rising name; equal ones too."""
    names = [name for name in sorted({*a.shapes, *b.shapes}) if pattern.search(name)]
    for reader in (a, b):
        reader.check_sizes([name for name in names if name in reader.shapes])
    return [_compare_variable(name, a, b, tolerance) for name in names]


def _compare_variable(
    name: str, a: CheckpointReader, b: CheckpointReader, tolerance: float
) -> Record:
    one, other = _spec(a, name), _spec(b, name)
    values = None
    if one is None or other is None:
        status = ONLY_B if one is None else ONLY_A
    elif one["shape"] != other["shape"]:
        status = SHAPE
    else:
        if VARIANT not in (one["dtype"], other["dtype"]):  # No reader gives their values.
            values = compare(a.read(name), b.read(name), tolerance)
        differs = VALUES if values is not None and values.differing else EQUAL
        status = DTYPE if one["dtype"] != other["dtype"] else differs
    record = values and {
        key: json_value(np.asarray(value)) if isinstance(value, float) else value
        for key, value in values._asdict().items()
    }
    return {"name": name, "status": status, "a": one, "b": other, "values": record}


def _spec(reader: CheckpointReader, name: str) -> Record | None:
    if name not in reader.shapes:
        return None
    return {"dtype": reader.dtypes[name].name, "shape": [*reader.shapes[name]]}


# Graphs.


def compare_graphs(
    a: MetaGraphFile, b: MetaGraphFile, pattern: re.Pattern[str]
) -> dict[str, Record]:
    """Compares two graphs by the names of their parts; of nodes only those that a pattern is in.

    Gives nodes and functions in the order of their graph, as JSON values. Raises CheckpointError
    where two nodes of a graph have the same name.
    """
    node_changes = functools.partial(_node_changes, {**_definitions(a), **_definitions(b)})
    changes: dict[str, _Changes] = {
        "nodes": node_changes,
        "functions": functools.partial(_function_changes, node_changes),
        "signatures": _signature_changes,
        "collections": _collection_changes,
    }
    one, other = _parts(a, pattern), _parts(b, pattern)
    return {kind: _compare(one[kind], other[kind], changes[kind]) for kind in changes}


def _definitions(meta: MetaGraphFile) -> Mapping[str, OpDef]:
    """As the file says; of an operation that it does not describe, as this TensorFlow does."""
    own = {op.name: op for op in meta.proto.meta_info_def.stripped_op_list.op}
    if {node.op for node in meta.proto.graph_def.node} <= own.keys():
        return own
    with suppress(CheckpointError):  # TensorFlow is not installed: its defaults are not known.
        return {**own, **op_definitions(meta.proto.graph_def)}
    return own


def _parts(meta: MetaGraphFile, pattern: re.Pattern[str]) -> dict[str, Mapping[str, Any]]:
    """The parts of each kind by name; those of a protobuf map are sorted."""
    functions = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    return {
        "nodes": {name: node for name, node in meta.nodes.items() if pattern.search(name)},
        "functions": dict(sorted(functions.items())),
        "signatures": dict(sorted(meta.proto.signature_def.items())),
        "collections": dict(sorted(meta.proto.collection_def.items())),
    }


def _compare(a: Mapping[str, Any], b: Mapping[str, Any], changes: _Changes) -> Record:
    found = {name: [*changes(a[name], b[name])] for name in a if name in b}
    return {
        "added": [name for name in b if name not in a],
        "removed": [name for name in a if name not in b],
        "changed": [{"name": name, "changes": told} for name, told in found.items() if told],
    }


def _node_changes(definitions: Mapping[str, OpDef], a: NodeDef, b: NodeDef) -> Iterator[str]:
    if a.op != b.op:
        yield f"operation: {a.op} -> {b.op}"
    for index, (one, other) in enumerate(itertools.zip_longest(_data(a), _data(b))):
        if one != other:
            yield f"input {index}: {one or 'none'} -> {other or 'none'}"
    yield from (f"waits no longer for {name}" for name in sorted(_waited(a) - _waited(b)))
    yield from (f"waits for {name}" for name in sorted(_waited(b) - _waited(a)))
    if a.device != b.device:
        yield f"device: {a.device or 'none'} -> {b.device or 'none'}"
    for name in sorted({*a.attr, *b.attr} - {_INFERRED}):
        old, new = _attribute(a, name, definitions), _attribute(b, name, definitions)
        if _bytes(old) != _bytes(new) and _unpacked(old) != _unpacked(new):
            yield f"attribute {name}: {_value(old)} -> {_value(new)}"


def _data(node: NodeDef) -> list[str]:
    """The inputs that carry values; `op` and `op:0` are the same."""
    return [text.removesuffix(":0") for text in node.input if not text.startswith("^")]


def _waited(node: NodeDef) -> set[str]:
    return {text[1:] for text in node.input if text.startswith("^")}


def _attribute(node: NodeDef, name: str, definitions: Mapping[str, OpDef]) -> AttrValue | None:
    """An attribute, or its default; None where there is neither."""
    if name in node.attr:
        return node.attr[name]
    for definition in definitions[node.op].attr if node.op in definitions else ():
        if definition.name == name and definition.HasField("default_value"):
            return definition.default_value
    return None


def _unpacked(value: AttrValue | None) -> object:
    """What tells a value from others; a small tensor may be written in several ways."""
    if value is not None and value.HasField("tensor"):
        sizes = [dim.size for dim in value.tensor.tensor_shape.dim]
        if min(sizes, default=0) >= 0 and math.prod(sizes) <= _MAX_ELEMENTS:
            with suppress(KeyError, TypeError, ValueError):  # It has no such values.
                found = constant(value.tensor)
                content = found.tolist() if found.dtype == object else found.tobytes()
                return value.tensor.dtype, sizes, content
    return _bytes(value)


def _bytes(message: Message | None) -> bytes | None:
    return None if message is None else message.SerializeToString(deterministic=True)


def _value(value: AttrValue | None) -> str:
    text = "none" if value is None else attribute_text(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _function_changes(node_changes: _Changes, a: FunctionDef, b: FunctionDef) -> Iterator[str]:
    one, other = ({node.name: node for node in body.node_def} for body in (a, b))
    nodes = _compare(one, other, node_changes)
    yield from (f"node {name} added" for name in nodes["added"])
    yield from (f"node {name} removed" for name in nodes["removed"])
    for changed in nodes["changed"]:
        yield from (f"node {changed['name']}: {change}" for change in changed["changes"])
    if _bytes(a.signature) != _bytes(b.signature):
        yield "its arguments, results or attributes"
    if dict(a.ret) != dict(b.ret) or dict(a.control_ret) != dict(b.control_ret):
        yield "which of its nodes give its results"


def _signature_changes(a: SignatureDef, b: SignatureDef) -> Iterator[str]:
    for what, one, other in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                yield f"{what} {key} {'added' if key in other else 'removed'}"
            elif one[key].name != other[key].name:
                yield f"{what} {key}: {one[key].name or '?'} -> {other[key].name or '?'}"
            elif _bytes(one[key]) != _bytes(other[key]):
                yield f"{what} {key}: its dtype or shape"
    if a.method_name != b.method_name:
        yield f"method: {a.method_name or 'none'} -> {b.method_name or 'none'}"


def _collection_changes(a: CollectionDef, b: CollectionDef) -> Iterator[str]:
    if _bytes(a) != _bytes(b):
        one, other = (sum(len(held.value) for _, held in c.ListFields()) for c in (a, b))
        yield f"{one} -> {other} entries" if one != other else f"its {one} entries differ"


# The two sides.


class Side(NamedTuple):
    """One of the two, and what of it is compared."""

    path: str
    reader: CheckpointReader | None
    meta: MetaGraphFile | None


def diff(config: DiffConfig) -> Record:
    """Compares what both have and tells what differs, as `docs/json.md` has it."""
    return read_newest([config.a, config.b], functools.partial(_diff, config))


def _diff(config: DiffConfig, hold: Hold) -> Record:
    a = _open_side(config.a, "--a", config, hold)
    b = _open_side(config.b, "--b", config, hold)
    pattern = re.compile(config.filter)
    variables = graphs = None
    if a.reader is not None and b.reader is not None:
        variables = compare_variables(a.reader, b.reader, pattern, config.tolerance)
    if a.meta is not None and b.meta is not None:
        graphs = compare_graphs(a.meta, b.meta, pattern)
    notes = [*_left_out(a, b, config.only)]
    if variables is None and graphs is None:
        raise ToolError(f"{a.path} and {b.path} have nothing to compare: {'; '.join(notes)}")
    differ = any(variable["status"] != EQUAL for variable in variables or ())
    differ = differ or any(any(part.values()) for part in (graphs or {}).values())
    return {
        "a": config.a,
        "b": config.b,
        "differ": differ,
        "notes": notes,
        "variables": variables,
        "graph": graphs,
    }


def _left_out(a: Side, b: Side, only: str | None) -> Iterator[str]:
    """Why what one has is not compared."""
    for wanted, one, other in ((VARIABLES, a.reader, b.reader), (GRAPH, a.meta, b.meta)):
        if only in (None, wanted) and (one is None) != (other is None):
            lacking, having = (a, b) if one is None else (b, a)
            yield f"{wanted}: {lacking.path} has none, {having.path} has"


def _open_side(path: str, flag: str, config: DiffConfig, hold: Hold) -> Side:
    is_file = os.path.basename(path) in layout.SAVED_MODEL_FILES
    place = os.path.dirname(path) or "." if is_file else path
    prefix = _prefix(place, flag, config.only, hold)
    try:
        reader = None
        if config.only != GRAPH and prefix is not None:
            verify_checkpoint(prefix, [layout.INDEX_SUFFIX])
            reader = CheckpointReader(prefix)
        meta = None if config.only == VARIABLES else _open_graph(place, prefix, config)
    except CheckpointError as error:
        raise explain_if_gone(error, prefix or path, flag) from error
    if config.only == VARIABLES and reader is None:
        raise ToolError(f"{flag}={path} has no variables: expected a checkpoint or a SavedModel")
    return Side(path, reader, meta)


def _prefix(path: str, flag: str, only: str | None, hold: Hold) -> str | None:
    """The prefix of the checkpoint that belongs to a path; None where there is none."""
    if path.endswith(GRAPH_SUFFIXES) and not file_io.is_folder(path):
        return None
    try:
        prefix = find_variables(path, flag)
    except CheckpointError as error:
        if only == VARIABLES:
            raise ToolError(str(error)) from error
        return None  # It may have a graph all the same; if not, that is said.
    hold(prefix)
    if is_folder(path):
        return prefix  # Its values were there a moment ago.
    is_there = file_io.is_folder(os.path.dirname(prefix) or ".")
    return prefix if is_there and named_entry(prefix).has_values else None


def _open_graph(path: str, prefix: str | None, config: DiffConfig) -> MetaGraphFile | None:
    """The graph, of a folder that of the very checkpoint; None where there are only variables."""
    if prefix is not None and (graph := graph_path(prefix)):
        verify_checkpoint(prefix, [layout.META_SUFFIX])
        path = graph
    elif prefix is not None and config.only != GRAPH:
        return None
    with config.limit.over("reading the graph"):
        return open_model(path, config.max_meta_bytes)
