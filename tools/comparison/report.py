"""What the command prints of two sides, for programs and for people."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from checkpoints.errors import first_few
from prediction.json_values import json_value
from tools.common.output import Record, table
from tools.comparison.graphs import GraphsDifference
from tools.comparison.nodes import NodesDifference
from tools.comparison.variables import (
    DTYPE,
    EQUAL,
    ONLY_A,
    ONLY_B,
    SHAPE,
    VALUES,
    VariableDifference,
)

_MAX_LINES = 10  # Of a list, in text.
_MAX_CHANGES = 4  # Of a node, in text.
_MAX_NAMED = 5
_STATUSES = (VALUES, SHAPE, DTYPE, ONLY_A, ONLY_B)
_HEADER = ["variable", "differs in", "largest", "relative", "elements"]


def as_record(
    a: str,
    b: str,
    variables: Sequence[VariableDifference] | None,
    graphs: GraphsDifference | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """JSON values.

    `a` and `b`, the paths; `differ`; `notes`, lines on what was not compared; `variables`, null
    where they were not, else all by name: each with `name`, `status` (`equal`, `values`, `shape`,
    `dtype`, `only in A`, `only in B`), `a` and `b` (each null or with `dtype` and `shape`) and
    `values`, null or with `equal_bytes`, `differing` (elements), `largest` and `relative` (null for
    strings; "Infinity" where only one is NaN or infinite) and `equal_nans`; `graph`, null where
    they were not compared, else `nodes`, `functions`, `signatures` and `collections`: each with
    `added` and `removed`, names, and `changed`, each with `name` and `changes`, phrases.
    """
    differ = any(v.status != EQUAL for v in variables or ()) or bool(graphs)
    return {
        "a": a,
        "b": b,
        "differ": differ,
        "notes": [*notes],
        "variables": None if variables is None else [_variable(v) for v in variables],
        "graph": None if graphs is None else _graph(graphs),
    }


def _variable(found: VariableDifference) -> dict[str, Any]:
    values = found.values
    if values is not None:
        numbers = {key: _number(getattr(values, key)) for key in ("largest", "relative")}
    return {
        "name": found.name,
        "status": found.status,
        "a": found.a and {"dtype": found.a.dtype, "shape": [*found.a.shape]},
        "b": found.b and {"dtype": found.b.dtype, "shape": [*found.b.shape]},
        "values": values and {**values._asdict(), **numbers},
    }


def _number(value: float | None) -> Any:
    return json_value(np.asarray(value)) if isinstance(value, float) else value


def _graph(graphs: GraphsDifference) -> dict[str, Any]:
    return {kind: _nodes(difference) for kind, difference in graphs._asdict().items()}


def _nodes(found: NodesDifference) -> dict[str, Any]:
    changed = [node._asdict() for node in found.changed]
    return {"added": found.added, "removed": found.removed, "changed": changed}


def as_text(record: Record) -> str:
    """What differs; long lists are cut short."""
    lines = [f"A is {record['a']}, B is {record['b']}"]
    lines += [f"not compared, {note}" for note in record["notes"]]
    if record["variables"] is not None:
        lines += _variable_lines(record["variables"])
    if record["graph"] is not None:
        lines += _graph_lines(record["graph"])
    return "\n".join(lines)


def _variable_lines(variables: Sequence[Record]) -> Iterator[str]:
    counts = Counter(variable["status"] for variable in variables)
    told = [f"{counts[status]} {_of(status)}" for status in _STATUSES if counts[status]]
    if not variables:
        yield "variables: none are compared"
        return
    yield f"variables: {', '.join([f'{counts[EQUAL]} equal', *told])}"
    differing = [variable for variable in variables if variable["status"] != EQUAL]
    if differing:
        rows = [_HEADER, *(_row(variable) for variable in differing[:_MAX_LINES])]
        yield from table(rows, right=(2, 3, 4), indent=2)
    yield from _more(len(differing))
    yield from _beside(variables)


def _of(status: str) -> str:
    return status if status in (ONLY_A, ONLY_B) else f"differ in {status}"


def _more(count: int) -> Iterator[str]:
    if count > _MAX_LINES:
        yield f"  and {count - _MAX_LINES} more, which --format=json has"


def _row(variable: Record) -> list[str]:
    values = variable["values"]
    what = variable["status"]
    if what in (SHAPE, DTYPE):
        what = f"{what}: {_spec(variable['a'])} -> {_spec(variable['b'])}"
    elif what in (ONLY_A, ONLY_B):
        what = f"{what}: {_spec(variable['a'] or variable['b'])}"
    if values is None:
        return [variable["name"], what, "", "", ""]
    numbers = [_shown(values["largest"]), _shown(values["relative"])]
    size = int(np.prod(variable["a"]["shape"], dtype=object))
    return [variable["name"], what, *numbers, f"{values['differing']} of {size}"]


def _spec(spec: Record) -> str:
    return f"{spec['dtype']} {spec['shape']}"


def _shown(number: float | str | None) -> str:
    if number is None:
        return ""
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _beside(variables: Sequence[Record]) -> Iterator[str]:
    """What is said of values that count as equal."""
    valued = [variable for variable in variables if variable["values"] is not None]
    nans = [variable["name"] for variable in valued if variable["values"]["equal_nans"]]
    if nans:
        yield f"  NaN at the same places in both, taken as equal: {first_few(nans, _MAX_NAMED)}"
    bytewise = [
        f"{variable['name']} (up to {_shown(variable['values']['largest'])})"
        for variable in valued
        if variable["status"] == EQUAL and not variable["values"]["equal_bytes"]
    ]
    if bytewise:
        yield f"  taken as equal, of other bytes: {first_few(bytewise, _MAX_NAMED)}"


def _graph_lines(graph: Record) -> Iterator[str]:
    if not any(any(found.values()) for found in graph.values()):
        yield "graphs: equal in nodes, functions, signatures and collections"
        return
    for kind, found in graph.items():
        if not any(found.values()):
            continue
        counts = [f"{len(found[what])} {what}" for what in ("added", "removed", "changed")]
        yield f"{kind}: {', '.join(counts)}"
        yield from _first([f"  + {name}" for name in found["added"]])
        yield from _first([f"  - {name}" for name in found["removed"]])
        yield from _first([f"  ~ {c['name']}: {_changes(c['changes'])}" for c in found["changed"]])


def _first(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_MAX_LINES]
    yield from _more(len(lines))


def _changes(changes: Sequence[str]) -> str:
    return first_few(changes, _MAX_CHANGES, "; ")
