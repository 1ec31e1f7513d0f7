"""The collections of a graph: names, texts, numbers, and messages decoded, such as a VariableDef.

Formats: `CollectionDef` in `tensorflow/core/protobuf/meta_graph.proto`; of entries that are
messages, `control_flow.proto`, `queue_runner.proto` and `saver.proto` beside it, and
`tensorflow/core/framework/variable.proto`. Which message a collection holds stands nowhere in a
file: TensorFlow knows it by the collection's name.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.control_flow_pb2 import CondContextDef, WhileContextDef
from tensorflow.core.protobuf.queue_runner_pb2 import QueueRunnerDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from metagraph.casting import json_value
from metagraph.meta import MetaGraphFile, node_of
from tools.graph_subject import Subject, listed, shortened

Entry: TypeAlias = dict[str, Any] | str | int | float

_KINDS: Mapping[str, tuple[str, type[Message]]] = {  # By collection, as `GraphKeys` names them.
    "cond_context": ("cond_context", CondContextDef),
    "while_context": ("while_context", WhileContextDef),
    "queue_runners": ("queue_runner", QueueRunnerDef),
    "savers": ("saver", SaverDef),
}
_SMALL = 1 << 20  # Bytes; what is small takes little memory once parsed.
_LONGEST = 200  # Characters of a message other than a variable's.
_ON_A_LINE = 10


def collections_part(subject: Subject) -> dict[str, Any]:
    """Collection -> its entries as JSON values.

    Names, texts and numbers are themselves. A message is an object whose key `kind` says which:
    `variable`, `cond_context`, `while_context`, `queue_runner`, `saver`, and `bytes` for what is
    none of these.
    """
    meta = subject.meta
    return {key: _decoded(meta, key) for key in sorted(meta.proto.collection_def)}


def _decoded(meta: MetaGraphFile, key: str) -> list[Entry]:
    collection = meta.collection(key)
    kind = collection.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(collection, kind).value
    if kind == "bytes_list":
        return [_from_bytes(meta, key, value) for value in values]
    if kind == "any_list":
        names = [value.type_url.rpartition("/")[2] for value in values]
        sizes = [len(value.value) for value in values]
        return [{"kind": "bytes", "type": n, "bytes": b} for n, b in zip(names, sizes, strict=True)]
    if kind == "float_list":
        return list(json_value(np.array(values, np.float32).astype(np.float64)))
    return list(values)


def _from_bytes(meta: MetaGraphFile, key: str, value: bytes) -> Entry:
    """A message of the collection's kind, a variable, or a text."""
    kind, message = _KINDS.get(key, ("variable", VariableDef))
    try:
        found = message.FromString(value if len(value) <= _SMALL else b"\xff")
        if not isinstance(found, VariableDef):
            return {"kind": kind, **MessageToDict(found, preserving_proto_field_name=True)}
        if node_of(found.variable_name) in meta.nodes:
            return _variable(found)
    except DecodeError:
        pass  # It is something else.
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"kind": "bytes", "bytes": len(value)}
    is_text = all(character.isprintable() or character in "\t\n" for character in text)
    return text if is_text else {"kind": "bytes", "bytes": len(value)}


def _variable(variable: VariableDef) -> dict[str, Any]:
    return {
        "kind": "variable",
        "variable": variable.variable_name,
        "initializer": variable.initializer_name,
        "snapshot": variable.snapshot_name,
        "initial_value": variable.initial_value_name,
        "is_resource": variable.is_resource,
    }


def collections_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [f"collections ({len(found)})"]
    for key, entries in found.items():
        if any(isinstance(entry, dict) for entry in entries):
            texts = [f"    {_text(entry)}" for entry in entries]
            result += [f"  {key} ({len(entries)})", *shortened(texts, most, "    ")]
        else:
            result.append(f"  {key} = {listed(entries, _ON_A_LINE)}")
    return result


def _text(entry: Entry) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    if entry["kind"] == "variable":
        kind = "resource" if entry["is_resource"] else "ref"
        return f"{entry['variable']} ({kind}), set by {entry['initializer']}"
    if entry["kind"] == "bytes":
        return f"{entry['bytes']} bytes" + (f" of {entry['type']}" if "type" in entry else "")
    text = json.dumps({key: value for key, value in entry.items() if key != "kind"})
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
