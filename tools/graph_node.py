"""One node of a graph: its attributes as text, what it takes, who takes what it gives.

Formats of attributes: `tensorflow/core/framework/{attr_value,tensor}.proto`.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

from errors import CheckpointError, ToolError, nearest_names
from metagraph.casting import json_value
from metagraph.graph import attribute_of, data_inputs
from metagraph.importing import disarmed_graph
from metagraph.meta import MetaGraphFile, format_shape, node_of
from metagraph.safety import offenders
from tools.graph_subject import listed, shortened, tensor_record, tensor_text

_COLOCATED = b"loc:@"
_CLASS = "_class"
_SHOWN_VALUES = 8  # Of a constant.
_LONGEST = 2000  # Characters of an attribute for people.


def node_record(meta: MetaGraphFile, text: str) -> dict[str, Any]:
    """JSON values, of a node or of the node of a tensor.

    Keys: `node`, `op`, `device`, `attributes` (see `attribute_text`), `inputs` and `outputs` (each
    `name`, `dtype` and `shape`, null where not known; an output's `takers` too, a list of `node`
    and `input`, the number of it there), `control_inputs` and `control_outputs` (nodes),
    `colocated_with` (nodes), `risk` (what it may do beyond computing; null where it may not).

    Raises:
      ToolError: there is no such node; the nearest names are in the message.
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
    takers = _takers(meta, name)
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


def _takers(meta: MetaGraphFile, name: str) -> dict[str, list[dict[str, Any]]]:
    """Who takes the outputs of a node, by the output's name."""
    found = defaultdict[str, list[dict[str, Any]]](list)
    for other in meta.nodes.values():
        for position, text in enumerate(data_inputs(other)):
            if node_of(text) == name:
                output = text if ":" in text else f"{text}:0"
                found[output].append({"node": other.name, "input": position})
    return found


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
        texts = [f"    {key} = {_cut(text)}" for key, text in found["attributes"].items()]
        yield from shortened(texts, most, "    ")
    yield "  inputs" if found["inputs"] else "  no inputs"
    yield from shortened([f"    {tensor_text(x)}" for x in found["inputs"]], most, "    ")
    for key, title in {"control_inputs": "waits for", "control_outputs": "waited for by"}.items():
        if found[key]:
            yield f"  {title} {listed(found[key], most)}"
    yield "  outputs" if found["outputs"] else "  no outputs"
    for output in found["outputs"]:
        yield f"    {tensor_text(output)}"
        texts = [f"      taken by {t['node']} as input {t['input']}" for t in output["takers"]]
        yield from shortened(texts or ["      taken by no node"], most, "      ")


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text


def attribute_text(value: AttrValue) -> str:
    """An attribute as text: `float32`, `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, 0.3, 0.4`."""
    kind = value.WhichOneof("value")
    if kind == "list":
        pairs = [(field.name, item) for field, items in value.list.ListFields() for item in items]
        return f"[{', '.join(_text(field, item) for field, item in pairs)}]"
    return "?" if kind is None else _text(kind, getattr(value, kind))


def _text(kind: str, value: Any) -> str:
    """One value of the field `kind` of an AttrValue."""
    return _TEXTS[kind](value) if kind in _TEXTS else str(value)


def dtype_name(number: int) -> str:
    """`float32` of 1; `dtype 99` of a number that this TensorFlow has no name for."""
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"dtype {number}"


def shape_sizes(shape: TensorShapeProto) -> list[int | None] | None:
    """Sizes as JSON has them: null where one is not known, and for a shape without a rank."""
    if shape.unknown_rank:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


def _tensor_text(tensor: TensorProto) -> str:
    """The dtype, the shape and the first values, flattened.

    Of equal values at its end a constant holds but one, which `tf.make_ndarray` repeats: it is
    given a shape of a few, as what the file's own shape says may be any size.
    """
    kind = f"{dtype_name(tensor.dtype)} {format_shape(shape_sizes(tensor.tensor_shape))}"
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    count = min(_SHOWN_VALUES, math.prod(sizes))
    try:
        dtype = tf.as_dtype(tensor.dtype)
        few = TensorProto(dtype=tensor.dtype)
        few.tensor_shape.dim.add().size = count
        few.tensor_content = tensor.tensor_content[: count * dtype.size]
        for field, values in tensor.ListFields():
            if field.name.endswith("_val"):
                width = 2 if dtype.is_complex else 1
                getattr(few, field.name).extend(values[: count * width])
        found = json_value(tf.make_ndarray(few))
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few of them.
        return f"{kind}, which cannot be read"
    rest = ["..."] if math.prod(sizes) > count else []
    return f"{kind} = {', '.join([*(json.dumps(v, ensure_ascii=False) for v in found), *rest])}"


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
