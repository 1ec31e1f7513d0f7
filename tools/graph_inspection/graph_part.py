"""The graph: how many nodes of which operation, what goes in, what comes out, its variables."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tools.graph_inspection.collection_entries import decoded
from tools.graph_inspection.lines import counted, shortened, tensor_text
from tools.graph_inspection.subject import Subject

_TITLES = {
    "inputs": "inputs",
    "pipeline": "to feed in place of the input pipeline",
    "outputs": "outputs",
    "candidates": "possible outputs, the likeliest first",
    "variables": "variables",
}


def record(subject: Subject) -> dict[str, Any]:
    """JSON values.

    Keys: `nodes` and `inference_nodes` (how many, of the graph and of what predicts), `ops`
    (operation -> nodes), `trainable` (names of variables); `inputs`, `pipeline`, `outputs`,
    `candidates` and `variables` as `prediction.listing.listing` has them.
    """
    nodes = subject.meta.nodes
    trainable = trainable_variables(subject)
    return {
        "nodes": len(nodes),
        "inference_nodes": len(subject.inference.names),
        "ops": dict(sorted(Counter(node.op for node in nodes.values()).items())),
        "trainable": sorted(trainable),
        **{key: subject.contents[key] for key in _TITLES},
    }


def trainable_variables(subject: Subject) -> set[str]:
    """The names of the variables in the collection of those that are trained."""
    return {
        entry["variable"].removesuffix(":0")
        for entry in decoded(subject.meta, "trainable_variables")
        if isinstance(entry, dict) and "variable" in entry
    }


def lines(found: Mapping[str, Any], most: int) -> list[str]:
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
