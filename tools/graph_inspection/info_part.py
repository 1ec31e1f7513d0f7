"""What a file says of itself: by which TensorFlow it was written, which operations it uses."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from checkpoints.loading.op_definitions import op_definitions
from tools.graph_inspection.lines import counted, listed
from tools.graph_inspection.subject import Subject


def record(subject: Subject) -> dict[str, Any]:
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


def lines(found: Mapping[str, Any], most: int) -> list[str]:
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
