"""What a meta graph holds, for --list: its inputs, outputs, variables, signature, collections."""

import functools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.signatures import Signature
from checkpoints.loading.tensor_info import TensorInfo, format_shape
from checkpoints.loading.variable_values import VARIABLE_OPS
from checkpoints.meta_graph import CLASS_NAMES_COLLECTION, TRAINED_ON_COLLECTION
from prediction.candidates import Candidates, find_candidates
from prediction.json_values import json_value
from prediction.model import Model

_TEXT_COLLECTIONS = (CLASS_NAMES_COLLECTION, TRAINED_ON_COLLECTION)
_MAX_DEFAULT_VALUES = 8
_MAX_SHOWN_ENTRIES = 10
_MAX_SHOWN_LINES = 300  # Of one part of the list.

_TITLES = {
    "inputs": "inputs",
    "pipeline": "to feed in place of the input pipeline",
    "outputs": "outputs",
    "candidates": "possible outputs",
    "variables": "variables",
}
_OPTIONAL = ("pipeline", "candidates")
_FLAGS = {"inputs": "feed", "outputs": "fetch"}
_CHOOSE = "signatures, to choose from with --signature"

Record = dict[str, Any]
_Entry = TypeVar("_Entry")


def listing(meta: MetaGraphFile, model: Model, found: Candidates | None = None) -> Record:
    """The contents, as JSON values.

    Args:
      meta: the file.
      model: its description.
      found: what could be fed and fetched, where it has been looked for already.

    Returns:
      Keys: `inputs`, `pipeline` (what can be fed in place of a queue or an iterator),
      `outputs`, `candidates` (what may be an output, where the file names none) and
      `variables`, each a list of `name`, `dtype` and `shape` (null where unknown; null sizes
      too), an input's `default` where it has one; `signature`, the one in use, with `name`
      (empty where there is none), `inputs`, `outputs` (key -> tensor name) and `not_names`,
      the keys that do not name their tensors, as a node has that name; `signatures`, the
      names of all; `collections` (key -> a list of names, texts or numbers, or the number of
      entries of another kind).
    """
    outputs = tuple(dict.fromkeys([*model.predict, *model.outputs.values()]))
    found = found or find_candidates(meta, [*model.inputs.values()], outputs)
    inputs = _tensors(meta, found.inputs)
    return {
        "inputs": [record | _default(meta, record["name"]) for record in inputs],
        "pipeline": _tensors(meta, found.pipeline),
        "outputs": _tensors(meta, outputs),
        "candidates": [] if outputs else _tensors(meta, found.outputs),
        "variables": list(_variables(meta)),
        "signature": _signature(meta, model.signature),
        "signatures": list(model.signatures),
        "collections": {key: _collection(meta, key) for key in sorted(meta.proto.collection_def)},
    }


def _signature(meta: MetaGraphFile, signature: Signature) -> Record:
    keys = [*signature.inputs.items(), *signature.outputs.items()]
    taken = {key for key, name in keys if meta.find_tensor(key) not in (None, name)}
    return {**signature._asdict(), "not_names": sorted(taken)}


def _tensors(meta: MetaGraphFile, names: Sequence[str]) -> list[Record]:
    try:
        return [_record(info) for info in describe_tensors(meta, names)]
    except CheckpointError:
        return [_tensor(meta, name) for name in names]


def _tensor(meta: MetaGraphFile, name: str) -> Record:
    try:
        return _record(*describe_tensors(meta, [name]))
    except CheckpointError:
        # It stands on an operation that this TensorFlow lacks; the list goes on all the same.
        return {"name": name, "dtype": None, "shape": None}


def _record(info: TensorInfo) -> Record:
    shape = None if info.shape is None else list(info.shape)
    return {"name": info.name, "dtype": info.dtype.name, "shape": shape}


def _default(meta: MetaGraphFile, name: str) -> Record:
    """The entry `default` of an input that has one of a few values; else nothing."""
    for source in meta.nodes[node_of(name)].input:  # A placeholder with a default has one.
        node = meta.nodes.get(node_of(source))
        if node is None or node.op != "Const":
            continue
        value = node.attr["value"].tensor
        sizes = [dim.size for dim in value.tensor_shape.dim]
        if min(sizes, default=1) >= 0 and math.prod(sizes) <= _MAX_DEFAULT_VALUES:
            try:
                return {"default": json_value(tf.make_ndarray(value))}
            except (KeyError, TypeError, ValueError):  # A dtype without values, or too few.
                return {}
    return {}


def _variables(meta: MetaGraphFile) -> Iterator[Record]:
    for name, node in meta.nodes.items():
        if node.op in VARIABLE_OPS:
            yield {"name": f"{name}:0", "dtype": _dtype(node), "shape": _shape(node)}


def _dtype(node: NodeDef) -> str | None:
    """None where it is a number that this TensorFlow has no name for."""
    try:
        name: str = tf.as_dtype(node.attr["dtype"].type).name
        return name
    except TypeError:
        return None


def _shape(node: NodeDef) -> list[int | None] | None:
    shape = node.attr["shape"].shape
    if shape.unknown_rank:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


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
    for key, title in _TITLES.items():
        if content[key] or key not in _OPTIONAL:
            lines += [title, *(_shortened(content[key], _tensor_line) or ["  (none)"])]
    lines += _signature_lines(content["signature"], content["signatures"])
    lines.append("collections")
    lines += _shortened([*content["collections"].items()], _collection_line)
    return "\n".join(lines)


def _shortened(entries: Sequence[_Entry], line: Callable[[_Entry], str]) -> list[str]:
    """A line for each of the first entries, and how many more there are."""
    more = len(entries) - _MAX_SHOWN_LINES
    rest = [f"  ... and {more} more (--format=json has all)"] if more > 0 else []
    return [*map(line, entries[:_MAX_SHOWN_LINES]), *rest]


def _signature_lines(signature: Record, names: Sequence[str]) -> Iterator[str]:
    """The signature in use, whose keys can be fed and fetched by, and the names of the others."""
    yield f"signature {signature['name']}".rstrip()
    for title in ("inputs", "outputs"):
        line = functools.partial(_key_line, signature["not_names"], title)
        yield from _shortened([*signature[title].items()], line)
    others = [name for name in names if name != signature["name"]]
    if others:
        yield "other signatures, for --signature" if signature["name"] else _CHOOSE
        yield from _shortened(others, "  {}".format)


def _key_line(not_names: Collection[str], title: str, entry: tuple[str, str]) -> str:
    key, name = entry
    note = f"  (--{_FLAGS[title]}={key} is the node of that name)" if key in not_names else ""
    return f"  {title[:-1]} {key} = {name}{note}"


def _tensor_line(record: Mapping[str, Any]) -> str:
    known = record["dtype"] is not None
    kind = f"{record['dtype']} {format_shape(record['shape'])}" if known else "unknown here"
    default = f", default {json.dumps(record['default'])}" if "default" in record else ""
    return f"  {record['name']}  {kind}{default}"


def _collection_line(entry: tuple[str, list[Any] | int]) -> str:
    key, values = entry
    return f"  {key} = {_entries(values)}"


def _entries(values: list[Any] | int) -> str:
    if isinstance(values, int):
        return f"({values} entries)"
    return first_few([*map(str, values)], _MAX_SHOWN_ENTRIES)
