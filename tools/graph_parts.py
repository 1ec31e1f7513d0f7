"""The parts of a graph that are looked at one by one, each as JSON values and as lines for people.

`info` is what the file says of itself, `graph` its operations, inputs, outputs and variables,
`saver` what is saved under which keys; `signatures` and `functions` are those of the graph, and
`safety` says whether it only computes.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from metagraph.meta import MetaGraphFile, format_shape, read_signatures, variable_definitions
from metagraph.safety import Offender, offenders, op_definitions
from metagraph.tables import with_tables
from metagraph.variables import VARIABLE_OPS, saver_keys
from tools.graph_subject import (
    Subject,
    counted,
    dtype_name,
    kind_text,
    listed,
    shape_sizes,
    shortened,
    tensor_text,
)

_TITLES = {
    "inputs": "inputs",
    "pipeline": "to feed in place of the input pipeline",
    "outputs": "outputs",
    "candidates": "possible outputs, the likeliest first",
    "variables": "variables",
}
_SAVER = ("filename_tensor_name", "save_tensor_name", "restore_op_name")
_SIDES = ("inputs", "outputs")
_ON_A_LINE = 6  # Arguments or operations of a function.
_OFFENDERS = 3  # Of one operation, that are named.


def info_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `file`, `tensorflow_version`, `tensorflow_git_version`, `meta_graph_version`, `tags`,
    `stripped_default_attrs`, `producer`, `min_consumer`, `bad_consumers` (of the graph's format),
    `nodes`, `functions` and `function_nodes` (how many), `ops` (operation -> nodes, those of
    functions included), `unknown_ops` (those that this TensorFlow does not have).
    """
    info, graph = subject.meta.proto.meta_info_def, subject.meta.proto.graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    ops = Counter(node.op for node in graph.node)
    for function in functions.values():
        ops.update(node.op for node in function.node_def)
    known = op_definitions(graph)
    return {
        "file": subject.meta.path,
        "tensorflow_version": info.tensorflow_version,
        "tensorflow_git_version": info.tensorflow_git_version,
        "meta_graph_version": info.meta_graph_version,
        "tags": list(info.tags),
        "stripped_default_attrs": info.stripped_default_attrs,
        "producer": graph.versions.producer,
        "min_consumer": graph.versions.min_consumer,
        "bad_consumers": list(graph.versions.bad_consumers),
        "nodes": len(graph.node),
        "functions": len(functions),
        "function_nodes": sum(len(function.node_def) for function in functions.values()),
        "ops": dict(sorted(ops.items())),
        "unknown_ops": sorted(op for op in ops if op not in known and op not in functions),
    }


def info_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    git = f" ({found['tensorflow_git_version']})" if found["tensorflow_git_version"] else ""
    stripped = "left out" if found["stripped_default_attrs"] else "written out"
    result = [
        f"file {found['file']}",
        f"  TensorFlow {found['tensorflow_version'] or '(not said)'}{git}",
        f"  graph version: producer {found['producer']}, min consumer {found['min_consumer']}",
        f"  attributes with their default: {stripped}",
        f"  operations: {counted(found['ops'], most)}",
    ]
    if found["bad_consumers"]:
        result.insert(3, f"  bad consumers {listed(found['bad_consumers'], most)}")
    if found["tags"]:
        result.insert(2, f"  tags {listed(found['tags'], most)}")
    if found["unknown_ops"]:
        result.append(f"  not in this TensorFlow: {listed(found['unknown_ops'], most)}")
    return result


def graph_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `nodes` and `inference_nodes` (how many, of the graph and of what predicts), `ops`
    (operation -> nodes), `trainable` (names of variables); `inputs`, `pipeline`, `outputs`,
    `candidates` and `variables` as `prediction.chosen_model.listing` has them.
    """
    nodes = subject.meta.nodes
    trainable = trainable_variables(subject.meta)
    return {
        "nodes": len(nodes),
        "inference_nodes": len(subject.inference.names),
        "ops": dict(sorted(Counter(node.op for node in nodes.values()).items())),
        "trainable": sorted(trainable),
        **{key: subject.contents[key] for key in _TITLES},
    }


def trainable_variables(meta: MetaGraphFile) -> set[str]:
    """The names of the variables in the collection of those that are trained."""
    return {name for name, _ in variable_definitions(meta, "trainable_variables")}


def graph_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [
        f"graph of {found['nodes']} nodes, {found['inference_nodes']} of them to predict",
        f"  nodes by operation: {counted(found['ops'], most)}",
    ]
    for key, title in _TITLES.items():
        if found[key] or key in ("inputs", "variables"):
            number = f" ({len(found[key])})" if key == "variables" else ""
            texts = [f"    {_line(entry, key, found['trainable'])}" for entry in found[key]]
            result += [f"  {title}{number}", *(shortened(texts, most, "    ") or ["    (none)"])]
    return result


def _line(entry: Mapping[str, Any], key: str, trainable: list[str]) -> str:
    default = f", default {json.dumps(entry['default'])}" if "default" in entry else ""
    is_other = key == "variables" and trainable and entry["name"][:-2] not in trainable
    return tensor_text(entry) + default + (", not trained" if is_other else "")


def saver_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `present` (whether the file has a saver), `filename_tensor_name`, `save_tensor_name`,
    `restore_op_name`, `max_to_keep` (0: all), `keep_checkpoint_every_n_hours`, `version` (`LEGACY`,
    which is V1 too, `V1`, `V2`), `sharded`, `saved` (a list of `variable`, `key` and, of a
    partitioned one, `slice` with `full_shape`, `starts` and `sizes`), `not_saved` (variables).

    Format: `tensorflow/core/protobuf/saver.proto`.
    """
    meta = subject.meta
    saver = meta.proto.saver_def
    versions = {number: name for name, number in SaverDef.CheckpointFormatVersion.items()}
    hours = saver.keep_checkpoint_every_n_hours
    saved = saver_keys(meta)
    names = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
    return {
        "present": meta.proto.HasField("saver_def"),
        **{key: getattr(saver, key) for key in _SAVER},
        "max_to_keep": saver.max_to_keep,
        "keep_checkpoint_every_n_hours": hours if math.isfinite(hours) else str(hours),
        "version": versions.get(saver.version, str(saver.version)),
        "sharded": saver.sharded,
        "saved": [
            {"variable": name, "key": stored.key}
            | ({} if stored.part is None else {"slice": _lists(stored.part._asdict())})
            for name, stored in sorted(saved.items())
        ],
        "not_saved": [name for name in names if name not in saved],
    }


def _lists(values: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    return {key: list(value) for key, value in values.items()}


def saver_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    if not found["present"] and not found["saved"]:
        return ["saver: the file has none"]
    tensors = ", ".join(f"{key.split('_')[0]} {found[key] or '(none)'}" for key in _SAVER)
    renamed = [p for p in found["saved"] if p["key"] != p["variable"] or "slice" in p]
    names = len(found["saved"]) - len(renamed)
    sharded = ", sharded" if found["sharded"] else ""
    kept = f"{found['max_to_keep'] or 'all'} checkpoints"
    hours = f"one every {found['keep_checkpoint_every_n_hours']} hours"
    result = [
        "saver",
        f"  {tensors}; version {found['version']}{sharded}; keeps {kept}, and {hours}",
        f"  saves {names} variables under their names" + (", and" if renamed else ""),
        *shortened([f"    {_place_text(place)}" for place in renamed], most, "    "),
    ]
    if found["not_saved"]:
        result.append(f"  does not save: {listed(found['not_saved'], most)}")
    return result


def _place_text(place: Mapping[str, Any]) -> str:
    if "slice" not in place:
        return f"{place['variable']} as {place['key']}"
    part = place["slice"]
    return (
        f"{place['variable']} as {format_shape(part['sizes'])} of {place['key']} "
        f"{format_shape(part['full_shape'])} from {format_shape(part['starts'])}"
    )


def signatures_part(subject: Subject) -> dict[str, Any]:
    """JSON values, with the types that the signatures declare; those of a session bundle do not.

    Signature -> `method_name`, `inputs` and `outputs`; each of these: key -> `name` (of the tensor;
    of a sparse one, those of its three), `dtype` (null where not declared), `shape`, `exists`
    (whether the graph has it).

    Format: `SignatureDef` in `tensorflow/core/protobuf/meta_graph.proto`.
    """
    meta = subject.meta
    found: dict[str, Any] = {}
    for name, signature in read_signatures(meta).items():
        found[name] = {"method_name": ""} | {
            side: {
                key: {"name": tensor, "dtype": None, "shape": None, "exists": True}
                for key, tensor in getattr(signature, side).items()
            }
            for side in _SIDES
        }
    for name, proto in sorted(meta.proto.signature_def.items()):
        found[name] = {"method_name": proto.method_name} | {
            side: {key: _tensor(meta, info) for key, info in sorted(getattr(proto, side).items())}
            for side in _SIDES
        }
    return found


def _tensor(meta: MetaGraphFile, info: TensorInfo) -> dict[str, Any]:
    names = [info.name]
    if info.WhichOneof("encoding") == "coo_sparse":
        names = [str(name) for _, name in info.coo_sparse.ListFields()]
    if info.WhichOneof("encoding") == "composite_tensor":
        names = [component.name for component in info.composite_tensor.components]
    return {
        "name": ", ".join(names),
        "dtype": dtype_name(info.dtype) if info.dtype else None,  # Of an operation, none.
        "shape": shape_sizes(info.tensor_shape),
        "exists": all(meta.find_tensor(name) is not None for name in names),
    }


def signatures_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = [f"signatures ({len(found)})"]
    for name, signature in found.items():
        method = f" ({signature['method_name']})" if signature["method_name"] else ""
        result.append(f"  {name}{method}")
        for side in _SIDES:
            texts = [
                f"    {side[:-1]} {key} = {entry['name']}"
                + (f"  {kind_text(entry)}" if entry["dtype"] else "")
                + ("" if entry["exists"] else ", which the graph does not have")
                for key, entry in signature[side].items()
            ]
            result += shortened(texts, most, "    ")
    return result


def functions_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Function, in the file's order -> `arguments` and `results` (name -> dtype, or the attribute that
    chooses it), `nodes` (how many), `ops` (operation -> nodes).

    Format: `tensorflow/core/framework/function.proto`.
    """
    return {
        function.signature.name: {
            "arguments": _types(function.signature.input_arg),
            "results": _types(function.signature.output_arg),
            "nodes": len(function.node_def),
            "ops": dict(sorted(Counter(node.op for node in function.node_def).items())),
        }
        for function in subject.meta.proto.graph_def.library.function
    }


def _types(arguments: Iterable[OpDef.ArgDef]) -> dict[str, str]:
    return {
        arg.name: dtype_name(arg.type) if arg.type else arg.type_attr or arg.type_list_attr
        for arg in arguments
    }


def functions_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    texts = list[str]()
    for name, function in found.items():
        arguments, results = (
            listed([f"{key} {dtype}" for key, dtype in function[side].items()], _ON_A_LINE)
            if function[side]
            else ""
            for side in ("arguments", "results")
        )
        ops = counted(function["ops"], _ON_A_LINE)
        texts.append(f"  {name}({arguments}) -> {results}")
        texts.append(f"    {function['nodes']} nodes: {ops}")
    return [f"functions ({len(found)})", *shortened(texts, 2 * most)]


def safety_part(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `inference` (what predict.py would run for the outputs; null where there are none) and
    `whole` (all that is in the file); each has `passes` and `offenders`, a list of `node`,
    `function` (empty for the graph itself), `op` and `risk` (as in `can read or write files`).
    """
    inference = subject.inference
    found = None
    if inference.needed is not None:
        needed, _ = with_tables(subject.meta, inference.outputs, inference.feeds)
        found = _found(offenders(needed.graph_def))
    return {"inference": found, "whole": _found(offenders(subject.meta.proto.graph_def))}


def _found(found: Iterable[Offender]) -> dict[str, Any]:
    entries = [
        {"node": o.node.name, "function": o.function, "op": o.node.op, "risk": o.risk}
        for o in found
    ]
    return {"passes": not entries, "offenders": entries}


def safety_lines(found: Mapping[str, Any], most: int) -> list[str]:
    """Lines for people."""
    result = ["safety: the list of operations that only compute"]
    if found["inference"] is None:
        result.append("  nothing to predict is known: --fetch names it")
    for key, title in {"inference": "what predicts", "whole": "the whole file"}.items():
        if found[key] is not None:
            result += _verdict(title, found[key], most)
    return result


def _verdict(title: str, found: Mapping[str, Any], most: int) -> list[str]:
    if found["passes"]:
        return [f"  {title} passes"]
    by_op: dict[str, list[str]] = {}
    risks = {}
    for entry in found["offenders"]:
        place = f"{entry['function']}/" if entry["function"] else ""
        by_op.setdefault(entry["op"], []).append(place + entry["node"])
        risks[entry["op"]] = entry["risk"]
    texts = [
        f"    {op}, which {risks[op]}: {listed(names, _OFFENDERS)}" for op, names in by_op.items()
    ]
    return [f"  {title} does not pass", *shortened(texts, most, "    ")]
