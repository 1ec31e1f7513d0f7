"""Two graphs, compared as data: nodes by name, functions, signatures, collections.

Nothing is imported. What differs is told as JSON values: of each kind of part, the names of those
`added` (only B has them) and `removed`, and those `changed`, each with a phrase for each change.

Formats: `tensorflow/core/framework/{attr_value,node_def,tensor}.proto`.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, SignatureDef

from metagraph.meta import MetaGraphFile
from metagraph.safety import op_definitions
from tools.command import Record

_MAX_ELEMENTS = 1 << 22  # Of a constant that is unpacked: a few bytes may stand for any number.
_MAX_SHOWN = 4
_MAX_CHARACTERS = 60
_INFERRED = "_output_shapes"  # TensorFlow wrote it down; it follows from the rest.


def compare_graphs(
    a: MetaGraphFile, b: MetaGraphFile, pattern: re.Pattern[str]
) -> dict[str, Record]:
    """Compares two graphs by the names of their parts.

    Args:
      a: the one.
      b: the other.
      pattern: only nodes in whose name it is found; other parts are compared all.

    Returns:
      What differs of `nodes` and `functions`, in the order of their graph, and of `signatures` and
      `collections`, which have none.

    Raises:
      CheckpointError: two nodes of a graph have the same name.
    """
    definitions = {**_definitions(a), **_definitions(b)}
    changes: dict[str, Callable[[Any, Any], Iterator[str]]] = {
        "nodes": lambda one, other: _node_changes(one, other, definitions),
        "functions": lambda one, other: _function_changes(one, other, definitions),
        "signatures": _signature_changes,
        "collections": _collection_changes,
    }
    one, other = _parts(a, pattern), _parts(b, pattern)
    return {kind: _compare(one[kind], other[kind], changes[kind]) for kind in changes}


def _definitions(meta: MetaGraphFile) -> Mapping[str, OpDef]:
    """Of this TensorFlow; of an operation that it does not have, what the file says."""
    own = {op.name: op for op in meta.proto.meta_info_def.stripped_op_list.op}
    return {**own, **op_definitions(meta.proto.graph_def)}


def _parts(meta: MetaGraphFile, pattern: re.Pattern[str]) -> dict[str, Mapping[str, Any]]:
    """The parts of each kind by name; those of a protobuf map are sorted."""
    functions = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    return {
        "nodes": {name: node for name, node in meta.nodes.items() if pattern.search(name)},
        "functions": dict(sorted(functions.items())),
        "signatures": dict(sorted(meta.proto.signature_def.items())),
        "collections": dict(sorted(meta.proto.collection_def.items())),
    }


def _compare(
    a: Mapping[str, Any], b: Mapping[str, Any], changes: Callable[[Any, Any], Iterator[str]]
) -> Record:
    found = {name: [*changes(a[name], b[name])] for name in a if name in b}
    return {
        "added": [name for name in b if name not in a],
        "removed": [name for name in a if name not in b],
        "changed": [{"name": name, "changes": told} for name, told in found.items() if told],
    }


def _node_changes(a: NodeDef, b: NodeDef, definitions: Mapping[str, OpDef]) -> Iterator[str]:
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
        one, other = _attribute(a, name, definitions), _attribute(b, name, definitions)
        if not _is_same(one, other):
            yield f"attribute {name}: {_value(one)} -> {_value(other)}"


def _data(node: NodeDef) -> list[str]:
    """The inputs that carry values; `op` and `op:0` are the same."""
    return [text.removesuffix(":0") for text in node.input if not text.startswith("^")]


def _waited(node: NodeDef) -> set[str]:
    return {text[1:] for text in node.input if text.startswith("^")}


def _attribute(node: NodeDef, name: str, definitions: Mapping[str, OpDef]) -> AttrValue | None:
    """An attribute, or its default; None where there is neither."""
    if name in node.attr:
        return node.attr[name]
    if node.op in definitions:
        for definition in definitions[node.op].attr:
            if definition.name == name and definition.HasField("default_value"):
                return definition.default_value
    return None


def _is_same(a: AttrValue | None, b: AttrValue | None) -> bool:
    """Whether two values are the same; a tensor has several ways to be written."""
    if a is None or b is None:
        return a is b
    if a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True):
        return True
    if a.WhichOneof("value") == b.WhichOneof("value") == "tensor":
        one, other = _array(a.tensor), _array(b.tensor)
        return one is not None and other is not None and _equal(one, other)
    return False


def _value(value: AttrValue | None) -> str:
    """A value in a few words: `float32`, `[1, 3, 3, 1]`, `'SAME'`, `float32 [128, 4]`."""
    if value is None:
        return "none"
    kind = value.WhichOneof("value")
    if kind is None:
        return "empty"
    if kind == "list":
        fields = value.list.ListFields()
        parts = [_described(field.name, item) for field, items in fields for item in items]
        return _short(f"[{', '.join(parts)}]")
    return _described(kind, getattr(value, kind))


def _described(kind: str, value: Any) -> str:
    if kind == "type":
        return _dtype(value)
    if kind == "shape":
        return _shape(value)
    if kind == "tensor":
        return _tensor(value)
    if kind == "func":
        return f"function {value.name}"
    if kind == "s":
        return _short(repr(value.decode("utf-8", "backslashreplace")))
    return _short(str(value))


def _tensor(tensor: TensorProto) -> str:
    array = _array(tensor)
    told = f"{_dtype(tensor.dtype)} {_shape(tensor.tensor_shape)}"
    if array is None or array.size > _MAX_SHOWN:
        return told
    return _short(f"{told} {array.tolist()}")


def _dtype(number: int) -> str:
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"dtype {number}"


def _shape(shape: TensorShapeProto) -> str:
    if shape.unknown_rank:
        return "of any shape"
    return "[" + ", ".join("?" if dim.size < 0 else str(dim.size) for dim in shape.dim) + "]"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def _array(tensor: TensorProto) -> np.ndarray[Any, Any] | None:
    """A constant's value; None where it is too large, or is none."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if min(sizes, default=0) < 0 or math.prod(sizes) > _MAX_ELEMENTS:
        return None
    try:
        return np.asarray(tf.make_ndarray(tensor))
    except (TypeError, ValueError):
        return None


def _equal(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a == b).all()) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()


def _function_changes(
    a: FunctionDef, b: FunctionDef, definitions: Mapping[str, OpDef]
) -> Iterator[str]:
    nodes = _compare(
        {node.name: node for node in a.node_def},
        {node.name: node for node in b.node_def},
        lambda one, other: _node_changes(one, other, definitions),
    )
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
            if key not in other:
                yield f"{what} {key} removed"
            elif key not in one:
                yield f"{what} {key} added"
            elif one[key].name != other[key].name:
                yield f"{what} {key}: {one[key].name or '?'} -> {other[key].name or '?'}"
            elif _bytes(one[key]) != _bytes(other[key]):
                yield f"{what} {key}: its dtype or shape"
    if a.method_name != b.method_name:
        yield f"method: {a.method_name or 'none'} -> {b.method_name or 'none'}"


def _collection_changes(a: CollectionDef, b: CollectionDef) -> Iterator[str]:
    if _bytes(a) == _bytes(b):
        return
    one, other = _size(a), _size(b)
    yield f"{one} -> {other} entries" if one != other else f"its {one} entries differ"


def _size(collection: CollectionDef) -> int:
    kind = collection.WhichOneof("kind")
    return 0 if kind is None else len(getattr(collection, kind).value)


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content
