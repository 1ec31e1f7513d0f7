"""The collections of a graph: names, texts, numbers, and messages decoded, such as a SaverDef."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.control_flow_pb2 import CondContextDef, WhileContextDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.queue_runner_pb2 import QueueRunnerDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from errors import CheckpointError
from metagraph.casting import json_value
from metagraph.meta import MetaGraphFile, bundle_signatures, format_shape, node_of
from metagraph.parsing import parse_message
from tools.graph_subject import Subject, listed, shortened

# What a SaverDef says.
#
# Format: `tensorflow/core/protobuf/saver.proto`.

_TENSORS = ("filename_tensor_name", "save_tensor_name", "restore_op_name")


def saver_record(saver: SaverDef) -> dict[str, Any]:
    """A saver as JSON values.

    Keys: `filename_tensor_name`, `save_tensor_name`, `restore_op_name`, `max_to_keep` (0: all),
    `keep_checkpoint_every_n_hours`, `version` (`LEGACY`, which is V1 too, `V1`, `V2`), `sharded`.
    """
    try:
        version = SaverDef.CheckpointFormatVersion.Name(saver.version)
    except ValueError:
        version = str(saver.version)
    hours = saver.keep_checkpoint_every_n_hours
    return {
        **{key: getattr(saver, key) for key in _TENSORS},
        "max_to_keep": saver.max_to_keep,
        "keep_checkpoint_every_n_hours": hours if math.isfinite(hours) else str(hours),
        "version": version,
        "sharded": saver.sharded,
    }


def saver_text(found: Mapping[str, Any]) -> str:
    """One line of what `saver_record` gives."""
    tensors = ", ".join(f"{key.split('_')[0]} {found[key] or '(none)'}" for key in _TENSORS)
    return (
        f"{tensors}; version {found['version']}{', sharded' if found['sharded'] else ''}; keeps "
        f"{found['max_to_keep'] or 'all'} checkpoints, and one every "
        f"{found['keep_checkpoint_every_n_hours']} hours"
    )


# The entries of a graph's collections, decoded.
#
# Formats: `CollectionDef` in `tensorflow/core/protobuf/meta_graph.proto`; of entries that are
# messages, `control_flow.proto`, `queue_runner.proto`, `saver.proto` beside it and
# `tensorflow/core/framework/variable.proto`. Which message a collection holds stands nowhere in a
# file: TensorFlow knows it by the collection's name.

Entry = dict[str, Any] | str | int | float


# Of the session bundle, the older of the two has the same fields on the wire.
_ASSETS = frozenset({AssetFileDef.DESCRIPTOR.full_name, "tensorflow.serving.AssetFile"})

_SIGNATURES = "tensorflow.serving.Signatures"
_SMALL = 1 << 20  # Bytes; what is small takes little memory once parsed.
M = TypeVar("M", bound=Message)


class _Kind(NamedTuple):
    message: type[Message]
    record: Callable[[Any], dict[str, Any]]


def decoded(meta: MetaGraphFile, key: str) -> list[Entry]:
    """The entries of a collection as JSON values.

    Names, texts and numbers are themselves. A message is an object whose key `kind` says which:
    `variable`, `cond_context`, `while_context`, `queue_runner`, `saver`, `asset`, `graph`,
    `signatures`, and `bytes` for what is none of these.
    """
    collection = meta.collection(key)
    kind = collection.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(collection, kind).value
    if kind == "bytes_list":
        return [_from_bytes(meta, key, value) for value in values]
    if kind == "any_list":
        return [_from_any(meta, value) for value in values]
    if kind == "float_list":
        return list(json_value(np.array(values, np.float32).astype(np.float64)))
    return list(values)


def _from_any(meta: MetaGraphFile, value: AnyMessage) -> Entry:
    name = value.type_url.rpartition("/")[2]
    try:
        if name in _ASSETS:
            return {"kind": "asset", **_asset(_parsed(AssetFileDef, value.value, meta.path))}
        if name == _SIGNATURES:
            return {"kind": "signatures", "names": sorted(bundle_signatures(meta))}
        if name == GraphDef.DESCRIPTOR.full_name:
            nodes = len(_parsed(GraphDef, value.value, meta.path).node)
            return {"kind": "graph", "nodes": nodes, "bytes": len(value.value)}
    except (CheckpointError, DecodeError):
        pass  # It is said how many bytes it is.
    return {"kind": "bytes", "type": name, "bytes": len(value.value)}


def _from_bytes(meta: MetaGraphFile, key: str, value: bytes) -> Entry:
    """A text, or one of the messages: the one that the name stands for, or a variable."""
    name = "variable"
    for kind, keys in _KEYS.items():
        if key in keys:
            name = kind
    try:
        message = _parsed(_KINDS[name].message, value, meta.path)
        if key in _KEYS.get(name, ()) or _is_variable(meta, message):
            return {"kind": name, **_KINDS[name].record(message)}
    except (CheckpointError, DecodeError):
        pass  # It is something else.
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"kind": "bytes", "bytes": len(value)}
    is_text = all(character.isprintable() or character in "\t\n" for character in text)
    return text if is_text else {"kind": "bytes", "bytes": len(value)}


def _parsed(message: type[M], value: bytes, path: str) -> M:
    """A message within the file; of a large one, the number of fields is bounded."""
    if len(value) <= _SMALL:
        return message.FromString(value)
    return parse_message(message(), value, path)


def _is_variable(meta: MetaGraphFile, message: VariableDef) -> bool:
    return bool(message.variable_name) and node_of(message.variable_name) in meta.nodes


def _asset(asset: AssetFileDef) -> dict[str, Any]:
    return {"tensor": asset.tensor_info.name, "filename": asset.filename}


def _variable(variable: VariableDef) -> dict[str, Any]:
    found: dict[str, Any] = {
        "variable": variable.variable_name,
        "initializer": variable.initializer_name,
        "snapshot": variable.snapshot_name,
        "initial_value": variable.initial_value_name,
        "is_resource": variable.is_resource,
    }
    if variable.HasField("save_slice_info_def"):
        part = variable.save_slice_info_def
        found["slice"] = {
            "full_name": part.full_name,
            "full_shape": list(part.full_shape),
            "starts": list(part.var_offset),
            "sizes": list(part.var_shape),
        }
    return found


def _cond(context: CondContextDef) -> dict[str, Any]:
    return {
        "name": context.context_name,
        "predicate": context.pred_name,
        "pivot": context.pivot_name,
        "branch": bool(context.branch),
        "values": len(context.values_def.values),
        "nested": [_nested(inner) for inner in context.nested_contexts],
    }


def _while(context: WhileContextDef) -> dict[str, Any]:
    return {
        "name": context.context_name,
        "condition": context.pivot_name,
        "parallel_iterations": context.parallel_iterations,
        "back_prop": context.back_prop,
        "swap_memory": context.swap_memory,
        "enters": list(context.loop_enter_names),
        "exits": list(context.loop_exit_names),
        "maximum_iterations": context.maximum_iterations_name,
        "values": len(context.values_def.values),
        "nested": [_nested(inner) for inner in context.nested_contexts],
    }


def _nested(context: Any) -> str:
    """The name of a context within another."""
    kind = context.WhichOneof("ctxt")
    return str(getattr(context, kind).context_name) if kind else ""


def _queue_runner(runner: QueueRunnerDef) -> dict[str, Any]:
    return {
        "queue": runner.queue_name,
        "enqueue": list(runner.enqueue_op_name),
        "close": runner.close_op_name,
        "cancel": runner.cancel_op_name,
    }


_KINDS: Mapping[str, _Kind] = {
    "variable": _Kind(VariableDef, _variable),
    "cond_context": _Kind(CondContextDef, _cond),
    "while_context": _Kind(WhileContextDef, _while),
    "queue_runner": _Kind(QueueRunnerDef, _queue_runner),
    "saver": _Kind(SaverDef, saver_record),
}

# The names that `tf.compat.v1.GraphKeys` gives the collections of each.
_KEYS: Mapping[str, frozenset[str]] = {
    "variable": frozenset(
        {
            "variables",
            "trainable_variables",
            "local_variables",
            "model_variables",
            "moving_average_variables",
            "concatenated_variables",
            "metric_variables",
        }
    ),
    "cond_context": frozenset({"cond_context"}),
    "while_context": frozenset({"while_context"}),
    "queue_runner": frozenset({"queue_runners"}),
    "saver": frozenset({"savers"}),
}


# The collections of a graph: names, texts, numbers, and messages decoded.

_PLAIN_ON_A_LINE = 10


def collections_part(subject: Subject) -> dict[str, Any]:
    """Collection -> its entries, see `collection_entries.decoded`."""
    meta = subject.meta
    return {key: decoded(meta, key) for key in sorted(meta.proto.collection_def)}


def collections_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [f"collections ({len(found)})"]
    for key, entries in found.items():
        if all(not isinstance(entry, dict) for entry in entries):
            result.append(f"  {key} = {listed(entries, _PLAIN_ON_A_LINE)}")
        elif all(isinstance(entry, dict) and entry["kind"] == "bytes" for entry in entries):
            result.append(f"  {key} = {_undecoded(entries)}")
        else:
            texts = [f"    {_text(entry)}" for entry in entries]
            result += [f"  {key} ({len(entries)})", *shortened(texts, most, "    ")]
    return result


def _undecoded(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries of a kind that is not known."""
    types = ", ".join(sorted({entry["type"] for entry in entries if entry.get("type")}))
    total = sum(entry["bytes"] for entry in entries)
    return f"({len(entries)} entries, {total} bytes{f', {types}' if types else ''})"


def _text(entry: Entry) -> str:
    return _TEXTS[entry["kind"]](entry) if isinstance(entry, dict) else str(entry)


def _variable_text(entry: Mapping[str, Any]) -> str:
    part = ""
    if "slice" in entry:
        found = entry["slice"]
        part = (
            f", {format_shape(found['sizes'])} of {found['full_name']} "
            f"{format_shape(found['full_shape'])} from {format_shape(found['starts'])}"
        )
    kind = "resource" if entry["is_resource"] else "ref"
    return f"{entry['variable']} ({kind}), set by {entry['initializer']}{part}"


def _cond_text(entry: Mapping[str, Any]) -> str:
    nested = f", holds {listed(entry['nested'], _PLAIN_ON_A_LINE)}" if entry["nested"] else ""
    branch = "true" if entry["branch"] else "false"
    return (
        f"{entry['name']}: where {entry['predicate']} is {branch}, {entry['values']} values{nested}"
    )


def _while_text(entry: Mapping[str, Any]) -> str:
    nested = f", holds {listed(entry['nested'], _PLAIN_ON_A_LINE)}" if entry["nested"] else ""
    return (
        f"{entry['name']}: while {entry['condition']}, {entry['values']} values, "
        f"{entry['parallel_iterations']} turns at a time, "
        f"gives {listed(entry['exits'], _PLAIN_ON_A_LINE)}{nested}"
    )


def _queue_runner_text(entry: Mapping[str, Any]) -> str:
    enqueue = listed(entry["enqueue"], _PLAIN_ON_A_LINE)
    return f"{entry['queue']}: filled by {enqueue}; closed by {entry['close']}"


def _bytes(entry: Mapping[str, Any]) -> str:
    kind = f" of {entry['type']}" if entry.get("type") else ""
    return f"{entry['bytes']} bytes{kind}"


_TEXTS = {
    "variable": _variable_text,
    "cond_context": _cond_text,
    "while_context": _while_text,
    "queue_runner": _queue_runner_text,
    "saver": saver_text,
    "asset": lambda entry: f"{entry['filename']}, its path in {entry['tensor']}",
    "graph": lambda entry: f"a graph of {entry['nodes']} nodes, {entry['bytes']} bytes",
    "signatures": lambda entry: f"the signatures {listed(entry['names'], _PLAIN_ON_A_LINE)}",
    "bytes": _bytes,
}
