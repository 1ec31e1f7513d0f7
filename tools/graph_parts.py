"""The parts of a graph that are looked at one by one, each as JSON values and as lines for people.

`info` is what the file says of itself and its saver, `graph` its operations, inputs, outputs and
variables, `safety` whether it only computes. One node is a part, too.

Formats: `meta_graph.proto`, `saver.proto` in `tensorflow/core/protobuf`, `attr_value.proto`,
`function.proto`, `tensor.proto`, `variable.proto` in `tensorflow/core/framework`.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from checkpoints.bundle import STRING, as_dtype
from errors import CheckpointError, ToolError, nearest_names
from metagraph.description import constant, format_shape, json_value
from metagraph.graph import attribute_of, data_inputs
from metagraph.importing import disarmed_graph
from metagraph.meta import MetaGraphFile, node_of, read_signatures, shape_sizes
from metagraph.safety import PURE, RISKS, offenders
from metagraph.tables import with_tables
from metagraph.variables import VARIABLE_OPS, trainable_names
from prediction.chosen_model import listing
from prediction.output import TITLES, kind_text, shortened, tensor_text
from tools import graph_layers
from tools.graph_layers import Subject, counted, dtype_name, listed, tensor_record

_TITLES = {**TITLES, "candidates": "possible outputs, the likeliest first"}
_VERSIONS = ("tensorflow_version", "tensorflow_git_version", "meta_graph_version")
_SAVER = ("filename_tensor_name", "save_tensor_name", "restore_op_name", "max_to_keep")
_SIDES = ("inputs", "outputs")
_ENTRIES, _OPS, _OFFENDERS = 10, 6, 3  # Of a collection; of a function; of one operation.
_COLOCATED, _CLASS = b"loc:@", "_class"
_LONGEST = 2000  # Characters of an attribute for people.
_SHOWN_VALUES = 8  # Of a constant.


def _info(subject: Subject) -> dict[str, Any]:
    """JSON values; `ops` is operation -> nodes, those of functions included."""
    proto = subject.meta.proto
    info, graph, saver = proto.meta_info_def, proto.graph_def, proto.saver_def
    functions = {function.signature.name for function in graph.library.function}
    inner = [node for function in graph.library.function for node in function.node_def]
    ops = _by_op((*graph.node, *inner))
    return {
        "file": subject.meta.path,
        **{key: getattr(info, key) for key in _VERSIONS},
        "tags": list(info.tags),
        "stripped_default_attrs": info.stripped_default_attrs,
        "producer": graph.versions.producer,
        "min_consumer": graph.versions.min_consumer,
        "bad_consumers": list(graph.versions.bad_consumers),
        "nodes": len(graph.node),
        "functions": len(functions),
        "function_nodes": len(inner),
        "ops": ops,
        "saver": {key: getattr(saver, key) for key in _SAVER},
        # This TensorFlow does not have them.
        "unknown_ops": sorted(ops.keys() - PURE - RISKS.keys() - functions),
    }


def _by_op(nodes: Iterable[NodeDef]) -> dict[str, int]:
    return dict(sorted(Counter(node.op for node in nodes).items()))


def _info_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    git = f" ({found['tensorflow_git_version']})" if found["tensorflow_git_version"] else ""
    yield f"file {found['file']}"
    yield f"  TensorFlow {found['tensorflow_version'] or '(not said)'}{git}"
    if found["tags"]:
        yield f"  tags {listed(found['tags'], most)}"
    yield f"  graph version: producer {found['producer']}, min consumer {found['min_consumer']}"
    if found["bad_consumers"]:
        yield f"  bad consumers {listed(found['bad_consumers'], most)}"
    yield f"  operations: {counted(found['ops'], most)}"
    if any(found["saver"].values()):
        yield f"  saver: {', '.join(f'{key} {value}' for key, value in found['saver'].items())}"
    if found["unknown_ops"]:
        yield f"  not in this TensorFlow: {listed(found['unknown_ops'], most)}"


def _graph(subject: Subject) -> dict[str, Any]:
    """JSON values: some numbers, and what `prediction.chosen_model.listing` has of `_TITLES`."""
    # It looks for candidates itself where those of the subject are of a prediction asked for.
    contents = listing(subject.meta, subject.model, None if subject.fetch else subject.candidates)
    return {
        "nodes": len(subject.meta.nodes),
        "inference_nodes": len(subject.needed.names),
        "ops": _by_op(subject.meta.nodes.values()),
        "trainable": sorted(trainable_names(subject.meta)),
        **{key: contents[key] for key in _TITLES},
    }


def _graph_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    yield f"graph of {found['nodes']} nodes, {found['inference_nodes']} of them to predict"
    yield f"  nodes by operation: {counted(found['ops'], most)}"
    for key, title in _TITLES.items():
        if found[key] or key in ("inputs", "variables"):
            yield f"  {title}" + (f" ({len(found[key])})" if key == "variables" else "")
            trained = found["trainable"] if key == "variables" else ()
            texts = []
            for entry in found[key]:
                is_other = trained and entry["name"].removesuffix(":0") not in trained
                texts.append(tensor_text(entry) + (", not trained" if is_other else ""))
            yield from shortened(texts or ["(none)"], most, "    ")


def _collections(subject: Subject) -> dict[str, Any]:
    """Collection -> its entries as JSON values; what is no name, text or number has a `kind`."""
    return {key: _entries(subject.meta, key) for key in sorted(subject.meta.proto.collection_def)}


def _entries(meta: MetaGraphFile, key: str) -> list[Any]:
    collection = meta.collection(key)
    kind = collection.WhichOneof("kind")
    values = getattr(collection, kind).value if kind is not None else []
    if kind == "bytes_list":
        return [_from_bytes(meta, value) for value in values]
    if kind == "any_list":
        types = [(value.type_url.rpartition("/")[2], len(value.value)) for value in values]
        return [{"kind": "bytes", "type": name, "bytes": size} for name, size in types]
    if kind == "float_list":
        return list(json_value(np.array(values, np.float32).astype(np.float64)))
    return list(values)


def _from_bytes(meta: MetaGraphFile, value: bytes) -> dict[str, Any] | str:
    """A variable, a text, or neither: nothing in the file says which."""
    with suppress(DecodeError):  # It is something else.
        found = VariableDef.FromString(value)
        node = meta.nodes.get(node_of(found.variable_name))
        if node is not None and node.op in VARIABLE_OPS:
            names = ("initializer", "snapshot", "initial_value")
            return {
                "kind": "variable",
                "variable": found.variable_name,
                **{name: getattr(found, f"{name}_name") for name in names},
                "is_resource": found.is_resource,
            }
    text = value.decode("utf-8", "replace")
    is_text = all(character.isprintable() or character in "\t\n" for character in text)
    return text if is_text and "\ufffd" not in text else {"kind": "bytes", "bytes": len(value)}


def _collections_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    yield f"collections ({len(found)})"
    for key, entries in found.items():
        if any(isinstance(entry, dict) for entry in entries):
            yield f"  {key} ({len(entries)})"
            yield from shortened([_entry_text(entry) for entry in entries], most, "    ")
        else:
            yield f"  {key} = {listed(entries, _ENTRIES)}"


def _entry_text(entry: dict[str, Any] | str) -> str:
    if isinstance(entry, str):
        return entry
    if entry["kind"] == "bytes":
        return f"{entry['bytes']} bytes" + (f" of {entry['type']}" if "type" in entry else "")
    kind = "resource" if entry["is_resource"] else "ref"
    return f"{entry['variable']} ({kind}), set by {entry['initializer']}"


def _signatures(subject: Subject) -> dict[str, Any]:
    """JSON values, with the types that the signatures declare; those of a session bundle do not."""
    meta, found = subject.meta, dict[str, Any]()
    declared = dict(sorted(meta.proto.signature_def.items()))
    for name, signature in {**read_signatures(meta), **declared}.items():
        found[name] = {"method_name": getattr(signature, "method_name", "")}
        for side in _SIDES:
            tensors = sorted(getattr(signature, side).items())
            found[name][side] = {key: _tensor(meta, info) for key, info in tensors}
    return found


def _tensor(meta: MetaGraphFile, info: TensorInfo | str) -> dict[str, Any]:
    if isinstance(info, str):  # Of a session bundle's signature.
        return {"name": info, "dtype": None, "shape": None, "exists": True}
    encoding = info.WhichOneof("encoding") or "name"
    return {
        "name": info.name if encoding == "name" else f"({encoding})",
        "dtype": dtype_name(info.dtype) if info.dtype else None,  # Of an operation, none.
        "shape": shape_sizes(info.tensor_shape),
        "exists": encoding != "name" or meta.find_tensor(info.name) is not None,
    }


def _signatures_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    yield f"signatures ({len(found)})"
    for name, signature in found.items():
        yield f"  {name}" + (f" ({signature['method_name']})" if signature["method_name"] else "")
        for side in _SIDES:
            texts = [
                f"{side[:-1]} {key} = {entry['name']}"
                + (f"  {kind_text(entry)}" if entry["dtype"] else "")
                + ("" if entry["exists"] else ", which the graph does not have")
                for key, entry in signature[side].items()
            ]
            yield from shortened(texts, most, "    ")


def _functions(subject: Subject) -> dict[str, Any]:
    """JSON values: function, in the file's order -> operation -> nodes."""
    library = subject.meta.proto.graph_def.library
    return {function.signature.name: _by_op(function.node_def) for function in library.function}


def _functions_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    yield f"functions ({len(found)})"
    texts = [f"{name}, {sum(o.values())} nodes: {counted(o, _OPS)}" for name, o in found.items()]
    yield from shortened(texts, most)


def _safety(subject: Subject) -> dict[str, Any]:
    """JSON values: of what predict.py would run for the outputs, if there are any, and of all."""
    found = None
    if subject.outputs:
        needed, _ = with_tables(subject.meta, subject.outputs, subject.feeds)
        found = _verdict(needed.graph_def)
    return {"inference": found, "whole": _verdict(subject.meta.proto.graph_def)}


def _verdict(graph: GraphDef) -> dict[str, Any]:
    found = [
        {"node": node.name, "function": function, "op": node.op, "risk": risk}
        for node, function, risk in offenders(graph)
    ]
    return {"passes": not found, "offenders": found}


def _safety_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    yield "safety: the list of operations that only compute"
    if found["inference"] is None:
        yield "  nothing to predict is known: --fetch names it"
    for key, title in {"inference": "what predicts", "whole": "the whole file"}.items():
        if found[key] is not None:
            yield f"  {title} {'passes' if found[key]['passes'] else 'does not pass'}"
            by_op = defaultdict[str, list[str]](list)
            for entry in found[key]["offenders"]:
                place = f"{entry['function']}/" if entry["function"] else ""
                by_op[f"{entry['op']}, which {entry['risk']}"].append(place + entry["node"])
            texts = [f"{told}: {listed(nodes, _OFFENDERS)}" for told, nodes in by_op.items()]
            yield from shortened(texts, most, "    ")


# One node.


def node_record(meta: MetaGraphFile, text: str) -> dict[str, Any]:
    """JSON values, of a node or of the node of a tensor, as `docs/json.md` has them.

    Raises ToolError where there is no such node; the nearest names are in the message.
    """
    name = text.removeprefix("^").partition(":")[0]
    if name not in meta.nodes:
        near = nearest_names(name, meta.nodes)
        hint = f"the nearest are {', '.join(near)}" if near else "--part=graph shows its inputs"
        raise ToolError(f"{meta.path} has no node {text!r}; {hint}")
    node = meta.nodes[name]
    graph = None
    with suppress(CheckpointError):  # TensorFlow cannot import what the node needs.
        graph = disarmed_graph(meta, [f"{name}:0"])
    takers = defaultdict[str, list[dict[str, Any]]](list)
    for other in meta.nodes.values():
        for position, taken in enumerate(data_inputs(other)):
            if node_of(taken) == name:
                output = taken if ":" in taken else f"{taken}:0"
                takers[output].append({"node": other.name, "input": position})
    outputs = [] if graph is None else [t.name for t in graph.get_operation_by_name(name).outputs]
    outputs += sorted(taken for taken in takers if taken not in outputs)
    risks = {o.node.name: o.risk for o in offenders(meta.proto.graph_def) if not o.function}
    return {
        "node": name,
        "op": node.op,
        "device": node.device,
        "attributes": {
            key: attribute_text(node.attr[key]) for key in sorted(node.attr) if key != _CLASS
        },
        "inputs": [tensor_record(graph, text) for text in data_inputs(node)],
        "outputs": [tensor_record(graph, out) | {"takers": takers.get(out, [])} for out in outputs],
        "control_inputs": [text[1:] for text in node.input if text.startswith("^")],
        "control_outputs": [o.name for o in meta.nodes.values() if f"^{name}" in o.input],
        "colocated_with": [
            value.removeprefix(_COLOCATED).decode("utf-8", "backslashreplace")
            for value in attribute_of(node, _CLASS).list.s
            if value.startswith(_COLOCATED) and value != _COLOCATED + name.encode()
        ],
        "risk": risks.get(name),
    }


def node_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    """Lines for people."""
    yield f"node {found['node']}"
    yield f"  operation {found['op']}"
    if found["device"]:
        yield f"  device {found['device']}"
    if found["colocated_with"]:
        yield f"  on the device of {listed(found['colocated_with'], most)}"
    if found["risk"]:
        yield f"  is refused in a run: it {found['risk']}"
    if found["attributes"]:
        yield "  attributes"
        texts = [f"{key} = {_cut(text)}" for key, text in found["attributes"].items()]
        yield from shortened(texts, most, "    ")
    yield "  inputs" if found["inputs"] else "  no inputs"
    yield from shortened([tensor_text(tensor) for tensor in found["inputs"]], most, "    ")
    for key, title in {"control_inputs": "waits for", "control_outputs": "waited for by"}.items():
        if found[key]:
            yield f"  {title} {listed(found[key], most)}"
    yield "  outputs" if found["outputs"] else "  no outputs"
    for output in found["outputs"]:
        yield f"    {tensor_text(output)}"
        texts = [f"taken by {t['node']} as input {t['input']}" for t in output["takers"]]
        yield from shortened(texts or ["taken by no node"], most, "      ")


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text


def attribute_text(value: AttrValue) -> str:
    """An attribute as text: `float32`, `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, 0.3, 0.4`."""
    kind = value.WhichOneof("value")
    if kind == "list":
        pairs = [(field.name, item) for field, items in value.list.ListFields() for item in items]
        return f"[{', '.join(_TEXTS.get(field, str)(item) for field, item in pairs)}]"
    return "?" if kind is None else _TEXTS.get(kind, str)(getattr(value, kind))


def _tensor_text(tensor: TensorProto) -> str:
    """The dtype, the shape and the first values, flattened.

    Of equal values at its end a constant holds but one, which `constant` repeats: it is
    given a shape of a few, as what the file's own shape says may be any size.
    """
    kind = f"{dtype_name(tensor.dtype)} {format_shape(shape_sizes(tensor.tensor_shape))}"
    size = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    count = min(_SHOWN_VALUES, size)
    try:
        dtype = as_dtype(tensor.dtype)
        few = TensorProto(dtype=tensor.dtype)
        packed = tensor.tensor_content if dtype == STRING else b""  # Texts are of any length.
        few.tensor_shape.dim.add().size = size if packed else count
        few.tensor_content = packed or tensor.tensor_content[: count * dtype.size]
        width = 2 if dtype.is_complex else 1
        for field, values in tensor.ListFields():
            if field.name.endswith("_val"):
                getattr(few, field.name).extend(values[: count * width])
        shown = json_value(constant(few)[:count])
        texts = [json.dumps(value, ensure_ascii=False) for value in shown]
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few of them.
        return f"{kind}, which cannot be read"
    return f"{kind} = {', '.join([*texts, '...'] if size > count else texts)}"


def _function_text(value: NameAttrList) -> str:
    texts = [f"{key}={attribute_text(value.attr[key])}" for key in sorted(value.attr)]
    return f"{value.name}({', '.join(texts)})" if texts else str(value.name)


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "s": lambda value: value.decode("utf-8", "backslashreplace"),
    "type": dtype_name,
    "shape": lambda value: format_shape(shape_sizes(value)),
    "tensor": _tensor_text,
    "func": _function_text,
    "placeholder": lambda value: f"as the caller's {value}",
}


# Of each part: what it is as JSON values, and those as lines for people.
PARTS: Mapping[str, tuple[Callable[..., dict[str, Any]], Callable[..., Iterable[str]]]] = {
    "info": (_info, _info_lines),
    "graph": (_graph, _graph_lines),
    "collections": (_collections, _collections_lines),
    "signatures": (_signatures, _signatures_lines),
    "functions": (_functions, _functions_lines),
    "cost": (graph_layers.cost_part, graph_layers.cost_lines),
    "safety": (_safety, _safety_lines),
}
