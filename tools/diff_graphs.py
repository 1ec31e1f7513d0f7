"""Two graphs, compared as data: nodes by name, functions, signatures, collections.

Nothing is imported. What differs is told as JSON values: of each kind of part, the names of those
`added` (only B has them) and `removed`, and those `changed`, each with a phrase for each change.

Formats: `tensorflow/core/framework/{attr_value,node_def,tensor}.proto`.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, SignatureDef

from metagraph.meta import MetaGraphFile
from metagraph.safety import op_definitions
from tools.command import Record
from tools.graph_node import attribute_text

_MAX_ELEMENTS = 1 << 22  # Of a constant that is unpacked: a few bytes may stand for any number.
_LONGEST = 60  # Characters of a value.
_INFERRED = "_output_shapes"  # TensorFlow wrote it down; it follows from the rest.


def compare_graphs(
    a: MetaGraphFile, b: MetaGraphFile, pattern: re.Pattern[str]
) -> dict[str, Record]:
    """Compares two graphs by the names of their parts; of nodes only those that a pattern is in.

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


def _unpacked(value: AttrValue | None) -> bytes | None:
    """The bytes of a value; of a small tensor, which may be written in several ways, in one."""
    if value is not None and value.HasField("tensor"):
        sizes = [dim.size for dim in value.tensor.tensor_shape.dim]
        if min(sizes, default=0) >= 0 and math.prod(sizes) <= _MAX_ELEMENTS:
            with suppress(KeyError, TypeError, ValueError):  # It has no such values.
                return _bytes(tf.make_tensor_proto(tf.make_ndarray(value.tensor)))
    return _bytes(value)


def _bytes(message: Message | None) -> bytes | None:
    return None if message is None else message.SerializeToString(deterministic=True)


def _value(value: AttrValue | None) -> str:
    text = "none" if value is None else attribute_text(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


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
            if key not in one or key not in other:
                yield f"{what} {key} {'added' if key in other else 'removed'}"
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
