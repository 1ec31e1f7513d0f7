"""What a meta graph holds, for --list: its inputs, outputs, variables, signature, collections."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.inference_graph import describe_tensors, format_shape
from checkpoints.meta_graph import CLASS_NAMES_COLLECTION, TRAINED_ON_COLLECTION
from checkpoints.meta_graph_file import MetaGraphFile, node_of
from checkpoints.variable_values import VARIABLE_OPS
from prediction.json_values import json_value
from prediction.model import Model

_TEXT_COLLECTIONS = (CLASS_NAMES_COLLECTION, TRAINED_ON_COLLECTION)
_MAX_DEFAULT_VALUES = 8
_MAX_SHOWN_ENTRIES = 10

Record = dict[str, Any]


def listing(meta: MetaGraphFile, model: Model) -> Record:
    """The contents, as JSON values.

    Keys: `inputs`, `outputs` and `variables`, each a list of `name`, `dtype` and `shape` (null
    where unknown; null sizes too), an input's `default` where it has one; `signature` with
    `inputs` and `outputs` (argument -> tensor name); `collections` (key -> a list of names, texts
    or numbers, or the number of entries of another kind).
    """
    outputs = dict.fromkeys([*model.predict, *model.outputs.values()])
    return {
        "inputs": [_input(meta, name) for name in meta.placeholders()],
        "outputs": [_tensor(meta, name) for name in outputs],
        "variables": list(_variables(meta)),
        "signature": {"inputs": dict(model.inputs), "outputs": dict(model.outputs)},
        "collections": {key: _collection(meta, key) for key in sorted(meta.proto.collection_def)},
    }


def _tensor(meta: MetaGraphFile, name: str) -> Record:
    try:
        (info,) = describe_tensors(meta, [name])
    except CheckpointError:
        # It stands on an operation that this TensorFlow lacks; the list goes on all the same.
        return {"name": name, "dtype": None, "shape": None}
    shape = None if info.shape is None else list(info.shape)
    return {"name": name, "dtype": info.dtype.name, "shape": shape}


def _input(meta: MetaGraphFile, name: str) -> Record:
    record = _tensor(meta, name)
    for source in meta.nodes[node_of(name)].input:  # A placeholder with a default has one.
        node = meta.nodes.get(node_of(source))
        if node is not None and node.op == "Const":
            value = node.attr["value"].tensor
            if math.prod(dim.size for dim in value.tensor_shape.dim) <= _MAX_DEFAULT_VALUES:
                record["default"] = json_value(tf.make_ndarray(value))
    return record


def _variables(meta: MetaGraphFile) -> Iterator[Record]:
    for name, node in meta.nodes.items():
        if node.op in VARIABLE_OPS:
            shape = tf.TensorShape(node.attr["shape"].shape)
            yield {
                "name": f"{name}:0",
                "dtype": tf.as_dtype(node.attr["dtype"].type).name,
                "shape": None if shape.rank is None else shape.as_list(),
            }


def _collection(meta: MetaGraphFile, key: str) -> list[Any] | int:
    collection = meta.collection(key)
    kind = collection.WhichOneof("kind")
    if kind is None:
        return 0
    values = getattr(collection, kind).value
    if kind == "bytes_list" and key in _TEXT_COLLECTIONS:
        return [value.decode("utf-8", errors="replace") for value in values]
    return list(values) if kind in ("node_list", "int64_list", "float_list") else len(values)


def as_json(content: Record) -> str:
    """One JSON document."""
    return json.dumps(content, ensure_ascii=False)


def as_text(content: Record) -> str:
    """Lines for people."""
    lines = []
    for title in ("inputs", "outputs", "variables"):
        lines += [title, *_tensor_lines(content[title])]
    lines.append("signature")
    for title in ("inputs", "outputs"):
        lines += [f"  {title[:-1]} {k} = {name}" for k, name in content["signature"][title].items()]
    lines.append("collections")
    lines += [f"  {key} = {_entries(values)}" for key, values in content["collections"].items()]
    return "\n".join(lines)


def _tensor_lines(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not records:
        yield "  (none)"
    for record in records:
        known = record["dtype"] is not None
        kind = f"{record['dtype']} {format_shape(record['shape'])}" if known else "unknown here"
        default = f", default {json.dumps(record['default'])}" if "default" in record else ""
        yield f"  {record['name']}  {kind}{default}"


def _entries(values: list[Any] | int) -> str:
    if isinstance(values, int):
        return f"({values} entries)"
    more = len(values) - _MAX_SHOWN_ENTRIES
    shown = ", ".join(map(str, values[:_MAX_SHOWN_ENTRIES]))
    return shown + (f" and {more} more" if more > 0 else "")
