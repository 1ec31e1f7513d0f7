"""One look at a graph from start to end: what tools.inspect_graph does once its flags are read.

Only the file of the graph is read, never the variables' data: its parts, or one node of it.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.folder import Hold, read_newest, say_if_gone
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import META_SUFFIX
from errors import CheckpointError, ToolError, nearest_names
from metagraph.graph import attribute_of, data_inputs, graph_tensor
from metagraph.importing import declared, disarmed_graph
from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from metagraph.opening import find_model, open_model, prefix_of
from metagraph.safety import offenders, op_definitions
from prediction.output import check_target, write_whole
from tools import graph_collections, graph_cost, graph_parts
from tools.command import format_bytes
from tools.flat_graph import sizes_of, static_graph
from tools.graph_drawing import dot_text, draw_png, layer_graph, meta_graph_text
from tools.graph_subject import (
    Subject,
    attribute_text,
    attribute_value,
    kind_text,
    listed,
    shortened,
    tensor_text,
)
from tools.inspect_graph import PARTS, GraphInspection

_COLOCATED = b"loc:@"
_CLASS = "_class"
Typed = Callable[[str], tuple[str | None, list[int | None] | None] | None]


class _Body(NamedTuple):
    """The nodes that a node stands among.

    Attributes:
      function: their function; empty for the graph.
      nodes: by name.
      inputs: of a node, the data inputs as a graph names tensors: `node` or `node:index`.
      returned: tensor -> the function's results that it is.
    """

    function: str
    nodes: Mapping[str, NodeDef]
    inputs: Callable[[NodeDef], list[str]]
    returned: Mapping[str, list[str]]


def node_record(meta: MetaGraphFile, text: str) -> dict[str, Any]:
    """JSON values.

    Keys: `node`, `function` (empty for the graph), `op`, `device`, `attributes` (see
    `attributes.attribute_value`), `inputs` and `outputs` (each `name`, `dtype` and `shape`, null
    where not known; an output's `takers` too, a list of `node` and `input`, the number of it there,
    and of a function's, `result`), `control_inputs` and `control_outputs` (nodes), `colocated_with`
    (nodes), `risk` (what it may do beyond computing; null where it may not).

    Args:
      meta: the file.
      text: a node, `function/node`, or a tensor of one.

    Raises:
      ToolError: there is no such node; the nearest names are in the message.
    """
    body, node = _find(meta, text)
    typed = _types(meta, body, node)
    takers = _takers(body, node.name)
    return {
        "node": node.name,
        "function": body.function,
        "op": node.op,
        "device": node.device,
        "attributes": {
            key: attribute_value(node.attr[key]) for key in sorted(node.attr) if key != _CLASS
        },
        "inputs": [_tensor(name, typed) for name in map(_full, body.inputs(node))],
        "outputs": [
            {**_tensor(name, typed), "takers": takers.get(name, [])}
            for name in _output_names(node.name, typed, takers)
        ],
        "control_inputs": [name[1:] for name in node.input if name.startswith("^")],
        "control_outputs": [o.name for o in body.nodes.values() if f"^{node.name}" in o.input],
        "colocated_with": [
            value.removeprefix(_COLOCATED).decode("utf-8", "backslashreplace")
            for value in attribute_of(node, _CLASS).list.s
            if value.startswith(_COLOCATED) and value != _COLOCATED + node.name.encode()
        ],
        "risk": _risk(meta, body, node),
    }


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _find(meta: MetaGraphFile, text: str) -> tuple[_Body, NodeDef]:
    """The node of a name, of the graph before those of functions."""
    name = text.removeprefix("^").partition(":")[0]
    if name in meta.nodes:
        return _Body("", meta.nodes, data_inputs, {}), meta.nodes[name]
    for function in meta.proto.graph_def.library.function:
        own = f"{function.signature.name}/"
        for node in function.node_def if name.startswith(own) else ():
            if own + node.name == name:
                return _function_body(meta, function.signature.name), node
    inner = (
        f"{function.signature.name}/{node.name}"
        for function in meta.proto.graph_def.library.function
        for node in function.node_def
    )
    near = nearest_names(name, [*meta.nodes, *inner])
    hint = f"the nearest are {', '.join(near)}" if near else "--part=graph shows its inputs"
    raise ToolError(f"{meta.path} has no node {text!r}; {hint}")


def _function_body(meta: MetaGraphFile, name: str) -> _Body:
    graph_def = meta.proto.graph_def
    library = {f.signature.name: f for f in graph_def.library.function}
    known = op_definitions(graph_def)
    nodes = {node.name: node for node in library[name].node_def}

    def plain(text: str) -> str:
        return graph_tensor(
            text, nodes, lambda op: library[op].signature if op in library else known.get(op)
        )

    returned = defaultdict[str, list[str]](list)
    for result in library[name].signature.output_arg:
        returned[_full(plain(library[name].ret.get(result.name, "")))].append(result.name)
    return _Body(name, nodes, lambda node: [plain(t) for t in data_inputs(node)], returned)


def _takers(body: _Body, name: str) -> dict[str, list[dict[str, Any]]]:
    """Who takes the outputs of a node, by the output's name."""
    found = defaultdict[str, list[dict[str, Any]]](list)
    for other in body.nodes.values():
        if not any(text.startswith(name) for text in other.input):
            continue
        for position, text in enumerate(body.inputs(other)):
            if text.partition(":")[0] == name:
                found[_full(text)].append({"node": other.name, "input": position})
    for tensor, results in body.returned.items():
        if tensor.partition(":")[0] == name:
            found[tensor] += [{"result": result} for result in results]
    return found


def _output_names(name: str, typed: Typed, takers: Mapping[str, Any]) -> list[str]:
    """The outputs of a node: those whose type is known, and those that are taken."""
    names = list[str]()
    while typed(f"{name}:{len(names)}") is not None:
        names.append(f"{name}:{len(names)}")
    return [*names, *sorted(taken for taken in takers if taken not in names)]


def _tensor(name: str, typed: Typed) -> dict[str, Any]:
    dtype, shape = typed(name) or (None, None)
    return {"name": name, "dtype": dtype, "shape": shape}


def _types(meta: MetaGraphFile, body: _Body, node: NodeDef) -> Typed:
    """Gives a tensor's dtype and shape as TensorFlow infers them, or as the file declares them."""
    if body.function:
        return _types_in_function(meta, body)
    try:
        graph = disarmed_graph(meta, [f"{node.name}:0"])
    except CheckpointError:
        return lambda name: _declared(meta, name)
    return lambda name: _inferred(graph, name)


def _inferred(graph: tf.Graph, name: str) -> tuple[str, list[int | None] | None] | None:
    try:
        tensor = graph.get_tensor_by_name(name)
    except (KeyError, ValueError):
        return None
    sizes = sizes_of(tensor.shape)
    return tensor.dtype.base_dtype.name, None if sizes is None else [*sizes]


def _declared(meta: MetaGraphFile, name: str) -> tuple[str, list[int | None] | None] | None:
    if meta.find_tensor(name) is None:
        return None
    found = declared(meta, name)
    if found is None:
        return None
    sizes = sizes_of(found[1])
    return found[0].name, None if sizes is None else [*sizes]


def _types_in_function(meta: MetaGraphFile, body: _Body) -> Typed:
    """As where the graph calls the function first; nothing where it never does."""
    static = static_graph(meta, (), None)
    first: dict[str, str] = {}
    for name, origin in static.flat.origins.items():
        if origin.function == body.function:
            first.setdefault(origin.node, name)

    def typed(name: str) -> tuple[str, list[int | None] | None] | None:
        node, _, index = name.partition(":")
        found = static.tensor(f"{first[node]}:{index}") if node in first else None
        if found is None:
            return None
        return found[0].name, None if found[1] is None else [*found[1]]

    return typed


def _risk(meta: MetaGraphFile, body: _Body, node: NodeDef) -> str | None:
    for offender in offenders(meta.proto.graph_def):
        if offender.function == body.function and offender.node.name == node.name:
            return offender.risk
    return None


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


# One look at a graph from start to end: what `tools.inspect_graph` does once its flags are read.
#
# Only the file of the graph is read, never the variables' data.

# Of each part: what it is as JSON values, and those as lines for people.
_PARTS: Mapping[
    str, tuple[Callable[[Subject], dict[str, Any]], Callable[[Mapping[str, Any], int], list[str]]]
] = {
    "info": (graph_parts.info_part, graph_parts.info_lines),
    "graph": (graph_parts.graph_part, graph_parts.graph_lines),
    "saver": (graph_parts.saver_part, graph_parts.saver_lines),
    "collections": (graph_collections.collections_part, graph_collections.collections_lines),
    "signatures": (graph_parts.signatures_part, graph_parts.signatures_lines),
    "functions": (graph_parts.functions_part, graph_parts.functions_lines),
    "cost": (graph_cost.cost_part, graph_cost.cost_lines),
    "safety": (graph_parts.safety_part, graph_parts.safety_lines),
}
_LINES_OF_ALL, _LINES_OF_ONE = 10, 300  # Of a list, where all parts are shown, or chosen ones.


def inspect_graph(config: GraphInspection) -> dict[str, Any]:
    """Looks at a graph, and writes the files that are asked for.

    Returns:
      JSON values: the parts by their names, each as its module says; or `node`; and `written`, a
      list of `file` and `bytes`, where there are any.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user.
    """
    for flag, path in config.targets.items():
        check_target(path, [], overwrite=config.overwrite, flag=flag)
    meta = read_newest([config.meta], functools.partial(_open, config))
    _check_others(config.targets, meta.path)
    return _found(config, meta)


def _open(config: GraphInspection, hold: Hold) -> MetaGraphFile:
    try:
        file = find_model(config.meta)
        hold(prefix_of(file))
        with config.limit.over("reading the graph"):
            meta = open_model(file, config.max_meta_bytes)
        verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    except CheckpointError as error:
        raise say_if_gone(error, config.meta) from error
    return meta


def _found(config: GraphInspection, meta: MetaGraphFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    written = [_write_text(config, meta)] if config.as_text else []  # Before anything looks at it.
    if config.node is not None:
        with config.limit.over("looking at the node"):
            found["node"] = node_record(meta, config.node)
    names = config.parts or (() if config.node or config.targets else PARTS)
    if names or config.dot or config.png:
        with config.limit.over("reading the graph"):
            subject = _subject(config, meta)
    for name in names:
        with config.limit.over(f"looking at the graph for {name}"):
            found[name] = _PARTS[name][0](subject)
    if config.dot or config.png:
        written += _draw(config, subject)
    return found | ({"written": written} if written else {})


def _subject(config: GraphInspection, meta: MetaGraphFile) -> Subject:
    return Subject(
        meta,
        read_model(meta, config.signature),
        fetch=config.fetch,
        batch_size=config.batch_size,
        depth=config.depth,
    )


def _check_others(targets: Mapping[str, str], source: str) -> None:
    """Sees that no file is written over what is read, or over another."""
    taken = {os.path.realpath(source): "is the file that is read"}
    for flag, path in targets.items():
        place = os.path.realpath(path)
        if place in taken:
            raise ToolError(f"--{flag}={path} {taken[place]}; give it another name")
        taken[place] = "is written by another flag too"


def _write_text(config: GraphInspection, meta: MetaGraphFile) -> dict[str, Any]:
    path = str(config.as_text)
    with config.limit.over("writing the graph as text"):
        return _write(path, meta_graph_text(meta, path))


def _draw(config: GraphInspection, subject: Subject) -> Iterator[dict[str, Any]]:
    with config.limit.over("drawing the graph"):
        text = dot_text(layer_graph(subject))
    if config.dot is not None:
        yield _write(config.dot, text.encode())
    if config.png is not None:
        yield _write(config.png, draw_png(text))


def _write(path: str, content: bytes) -> dict[str, Any]:
    write_whole(path, content)
    return {"file": path, "bytes": len(content)}


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspect_graph` returns as lines for people."""
    names = [name for name in PARTS if name in found]
    most = _LINES_OF_ALL if len(names) == len(PARTS) else _LINES_OF_ONE
    blocks: list[list[str]] = []
    if "node" in found:
        blocks.append(node_lines(found["node"], most))
    blocks += [_PARTS[name][1](found[name], most) for name in names]
    blocks += [
        [f"wrote {entry['file']}, {format_bytes(entry['bytes'])}"]
        for entry in found.get("written", ())
    ]
    # A newline in a name of the file could forge a line.
    return "\n".join(line.replace("\n", r"\n") for block in blocks for line in block)
