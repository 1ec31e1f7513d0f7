"""One node of a graph or of a function: its attributes, what it takes, who takes what it gives."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from errors import ToolError, nearest_names
from metagraph.casting import json_value
from metagraph.graph import attribute_of, data_inputs, graph_tensor
from metagraph.meta import MetaGraphFile, format_shape, node_of
from metagraph.safety import offenders, op_definitions
from tools.flat_graph import full_name, static_graph
from tools.graph_subject import (
    dtype_name,
    kind_text,
    listed,
    shape_sizes,
    shortened,
    tensor_text,
)

_COLOCATED = b"loc:@"
_CLASS = "_class"
_SHOWN_VALUES = 8  # Of a constant.
_LONGEST = 2000  # Characters of an attribute as text.


class _Body(NamedTuple):
    """The nodes that a node stands among: those of a function, or of the graph, which has no name.

    `inputs` gives the data inputs of a node as `node:index`; `results` are those of the function,
    by the tensor that they are.
    """

    function: str
    nodes: Mapping[str, NodeDef]
    inputs: Callable[[NodeDef], list[str]]
    results: Mapping[str, list[str]]


def node_record(meta: MetaGraphFile, text: str) -> dict[str, Any]:
    """JSON values.

    Keys: `node`, `function` (empty for the graph), `op`, `device`, `attributes` (see
    `attribute_value`), `inputs` and `outputs` (each `name`, `dtype` and `shape`, null where not
    known; an output's `takers` too, a list of `node` and `input`, the number of it there, and of a
    function's, `result`), `control_inputs` and `control_outputs` (nodes), `colocated_with` (nodes),
    `risk` (what it may do beyond computing; null where it may not).

    The text is a node, `function/node`, or a tensor of one.

    Raises:
      ToolError: there is no such node; the nearest names are in the message.
    """
    body, node = _find(meta, text)
    typed = _types(meta, body, node)
    takers = _takers(body, node.name)
    names = list[str]()
    while typed(f"{node.name}:{len(names)}")["dtype"] is not None:
        names.append(f"{node.name}:{len(names)}")
    names += sorted(taken for taken in takers if taken not in names)
    refused = {(o.function, o.node.name): o.risk for o in offenders(meta.proto.graph_def)}
    return {
        "node": node.name,
        "function": body.function,
        "op": node.op,
        "device": node.device,
        "attributes": {
            key: attribute_value(node.attr[key]) for key in sorted(node.attr) if key != _CLASS
        },
        "inputs": [typed(name) for name in body.inputs(node)],
        "outputs": [{**typed(name), "takers": takers.get(name, [])} for name in names],
        "control_inputs": [name[1:] for name in node.input if name.startswith("^")],
        "control_outputs": [o.name for o in body.nodes.values() if f"^{node.name}" in o.input],
        "colocated_with": [
            value.removeprefix(_COLOCATED).decode("utf-8", "backslashreplace")
            for value in attribute_of(node, _CLASS).list.s
            if value.startswith(_COLOCATED) and value != _COLOCATED + node.name.encode()
        ],
        "risk": refused.get((body.function, node.name)),
    }


def _find(meta: MetaGraphFile, text: str) -> tuple[_Body, NodeDef]:
    """The node of a name, of the graph before those of functions."""
    name = text.removeprefix("^").partition(":")[0]
    if name in meta.nodes:
        body = _Body("", meta.nodes, lambda node: [*map(full_name, data_inputs(node))], {})
        return body, meta.nodes[name]
    inner = {
        f"{function.signature.name}/{node.name}": (function.signature.name, node)
        for function in meta.proto.graph_def.library.function
        for node in function.node_def
    }
    if name in inner:
        return _function_body(meta, inner[name][0]), inner[name][1]
    near = nearest_names(name, [*meta.nodes, *inner])
    hint = f"the nearest are {', '.join(near)}" if near else "--part=graph shows its inputs"
    raise ToolError(f"{meta.path} has no node {text!r}; {hint}")


def _function_body(meta: MetaGraphFile, name: str) -> _Body:
    library = {f.signature.name: f for f in meta.proto.graph_def.library.function}
    known = {**op_definitions(meta.proto.graph_def)}
    known |= {function: proto.signature for function, proto in library.items()}
    nodes = {node.name: node for node in library[name].node_def}
    results = defaultdict[str, list[str]](list)
    for result in library[name].signature.output_arg:
        tensor = graph_tensor(library[name].ret.get(result.name, ""), nodes, known.get)
        results[full_name(tensor)].append(result.name)
    return _Body(
        name,
        nodes,
        lambda node: [full_name(graph_tensor(t, nodes, known.get)) for t in data_inputs(node)],
        results,
    )


def _takers(body: _Body, name: str) -> dict[str, list[dict[str, Any]]]:
    """Who takes the outputs of a node, by the output's name."""
    found = defaultdict[str, list[dict[str, Any]]](list)
    for other in body.nodes.values():
        if any(text.startswith(name) for text in other.input):
            for position, text in enumerate(body.inputs(other)):
                if node_of(text) == name:
                    found[text].append({"node": other.name, "input": position})
    for tensor, results in body.results.items():
        if node_of(tensor) == name:
            found[tensor] += [{"result": result} for result in results]
    return found


def _types(meta: MetaGraphFile, body: _Body, node: NodeDef) -> Callable[[str], dict[str, Any]]:
    """Gives a tensor's name, dtype and shape, as TensorFlow infers them.

    In a function, they are those of the graph's first call; nothing is known where it has none.
    """
    outputs = [] if body.function else [f"{node.name}:0"]
    static = static_graph(meta, outputs, None)
    first: dict[str, str] = {}
    for name, origin in static.flat.origins.items():
        if origin.function == body.function:
            first.setdefault(origin.node, name)

    def typed(name: str) -> dict[str, Any]:
        inner, _, index = name.partition(":")
        found = static.tensor(f"{first[inner]}:{index}") if inner in first else None
        dtype, shape = found or (None, None)
        return {"name": name, "dtype": dtype, "shape": shape}

    return typed


def node_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    place = f" of function {found['function']}" if found["function"] else ""
    result = [f"node {found['node']}{place}", f"  operation {found['op']}"]
    if found["device"]:
        result.append(f"  device {found['device']}")
    if found["colocated_with"]:
        result.append(f"  on the device of {listed(found['colocated_with'], most)}")
    if found["risk"]:
        result.append(f"  is refused in a run: it {found['risk']}")
    if found["attributes"]:
        result.append("  attributes")
        texts = [f"    {k} = {attribute_text(v)}" for k, v in found["attributes"].items()]
        result += shortened(texts, most, "    ")
    result.append("  inputs" if found["inputs"] else "  no inputs")
    result += shortened([f"    {tensor_text(x)}" for x in found["inputs"]], most, "    ")
    for key, title in {"control_inputs": "waits for", "control_outputs": "waited for by"}.items():
        if found[key]:
            result.append(f"  {title} {listed(found[key], most)}")
    result.append("  outputs" if found["outputs"] else "  no outputs")
    for output in found["outputs"]:
        result += _output_lines(output, most)
    return result


def _output_lines(output: Mapping[str, Any], most: int) -> Iterator[str]:
    yield f"    {output['name']}  {kind_text(output)}"
    texts = [
        f"      result {taker['result']} of the function"
        if "result" in taker
        else f"      taken by {taker['node']} as input {taker['input']}"
        for taker in output["takers"]
    ]
    yield from shortened(texts or ["      taken by no node"], most, "      ")


def attribute_value(value: AttrValue) -> Any:
    """An attribute as a JSON value.

    Formats: `tensorflow/core/framework/attr_value.proto`, `tensorflow/core/framework/tensor.proto`.

    A dtype is its name, a shape a list of sizes (null where not known; null for no rank), a tensor
    an object of `dtype`, `shape` and `values` (the first of them, as they are in memory; null where
    they cannot be read), a function one of `function` and `attributes`, a value left to the caller
    one of `placeholder`.
    """
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "placeholder":
        return {"placeholder": value.placeholder}
    if kind == "list":
        return [_plain(f.name, item) for f, items in value.list.ListFields() for item in items]
    return _plain(kind, getattr(value, kind))


def _plain(kind: str, value: Any) -> Any:
    """One value of the field `kind` of an AttrValue."""
    return _PLAIN[kind](value) if kind in _PLAIN else value


def _tensor(value: TensorProto) -> dict[str, Any]:
    shape = shape_sizes(value.tensor_shape)
    return {"dtype": dtype_name(value.dtype), "shape": shape, "values": _first_values(value)}


def _function(value: NameAttrList) -> dict[str, Any]:
    attributes = {key: attribute_value(value.attr[key]) for key in sorted(value.attr)}
    return {"function": value.name, "attributes": attributes}


_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "s": lambda value: value.decode("utf-8", "backslashreplace"),
    "f": lambda value: value if math.isfinite(value) else str(value),
    "type": dtype_name,
    "shape": shape_sizes,
    "tensor": _tensor,
    "func": _function,
}


def _first_values(tensor: TensorProto) -> list[Any] | None:
    """The first values, flattened; None where they cannot be read.

    Of equal values at its end a constant holds but one, which `tf.make_ndarray` repeats: it is
    given a shape of a few, as what the file's own shape says may be any size.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        return None
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
        found: list[Any] = json_value(tf.make_ndarray(few))
        return found
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few.
        return None


def attribute_text(value: Any) -> str:
    """An attribute's JSON value for people: `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, ...`."""
    text = _text(value)
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return _object_text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None:  # A size or a shape that is not known.
        return "?"
    return value if isinstance(value, str) else json.dumps(value)


def _object_text(value: Mapping[str, Any]) -> str:
    if "placeholder" in value:
        return f"as the caller's {value['placeholder']}"
    if "function" in value:
        attributes = ", ".join(f"{k}={_text(v)}" for k, v in value["attributes"].items())
        return f"{value['function']}({attributes})" if attributes else str(value["function"])
    kind = f"{value['dtype']} {format_shape(value['shape'])}"
    if value["values"] is None:
        return f"{kind}, which cannot be read"
    rest = ", ..." if math.prod(value["shape"]) > len(value["values"]) else ""
    return f"{kind} = {', '.join(json.dumps(v, ensure_ascii=False) for v in value['values'])}{rest}"
