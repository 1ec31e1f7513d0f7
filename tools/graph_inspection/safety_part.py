"""Whether a graph passes the list of operations that only compute, and why not."""

from collections.abc import Iterable, Mapping
from typing import Any

from checkpoints.loading.lookup_tables import with_tables
from checkpoints.loading.op_check import Offender, offenders
from tools.graph_inspection.lines import listed, shortened
from tools.graph_inspection.subject import Subject

_NAMED = 3


def record(subject: Subject) -> dict[str, Any]:
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


def lines(found: Mapping[str, Any], most: int) -> list[str]:
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
    texts = [f"    {op}, which {risks[op]}: {listed(names, _NAMED)}" for op, names in by_op.items()]
    return [f"  {title} does not pass", *shortened(texts, most, "    ")]
