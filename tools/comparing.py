"""What tools.diff does once its flags are read, and what it prints of the two sides.

Each side has variables, or a graph, or both.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints import naming
from checkpoints.folder import explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, ToolError, first_few
from metagraph.casting import json_value
from metagraph.meta import MetaGraphFile
from metagraph.opening import find_variables, open_model
from metagraph.parsing import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from tools.array_figures import (
    DTYPE,
    EQUAL,
    ONLY_A,
    ONLY_B,
    SHAPE,
    VALUES,
    VariableDifference,
    compare_variables,
)
from tools.command import Record, table
from tools.diff import DiffConfig
from tools.diff_graphs import compare_graphs
from tools.folder_entries import list_folder, named_entry

VARIABLES, GRAPH = "variables", "graph"
_READING = "reading the graph"
_MAX_LINES = 10  # Of a list, in text.
_MAX_CHANGES = 4  # Of a node, in text.
_MAX_NAMED = 5
_STATUSES = (VALUES, SHAPE, DTYPE, ONLY_A, ONLY_B)
_HEADER = ["variable", "differs in", "largest", "relative", "elements"]


class Side(NamedTuple):
    """One of the two, with what of it is compared: its checkpoint, its graph."""

    path: str
    reader: CheckpointReader | None
    meta: MetaGraphFile | None


def diff(config: DiffConfig) -> Record:
    """Compares what both have and tells what differs, as JSON values.

    Returns:
      `a` and `b`, the paths; `differ`; `notes`, lines on what was not compared; `variables`, null
      where they were not, else all by name: each with `name`, `status` (`equal`, `values`,
      `shape`, `dtype`, `only in A`, `only in B`), `a` and `b` (each null or with `dtype` and
      `shape`) and `values`, null or with `equal_bytes`, `differing` (elements), `largest` and
      `relative` (null for strings; "Infinity" where only one is NaN or infinite) and `equal_nans`;
      `graph`, null where they were not compared, else as of `compare_graphs`.

    Raises:
      CheckpointError, ToolError: one of them cannot be read, or they have nothing in common.
    """
    return read_newest([config.a, config.b], functools.partial(_diff, config))


def _diff(config: DiffConfig, hold: Hold) -> Record:
    a, b = (
        _open_side(path, flag, config, hold)
        for path, flag in ((config.a, "--a"), (config.b, "--b"))
    )
    pattern = re.compile(config.filter)
    variables = graphs = None
    if a.reader is not None and b.reader is not None:
        found = compare_variables(a.reader, b.reader, pattern, config.tolerance)
        variables = [_variable(variable) for variable in found]
    if a.meta is not None and b.meta is not None:
        graphs = compare_graphs(a.meta, b.meta, pattern)
    notes = [*_left_out(a, b, config.only)]
    if variables is None and graphs is None:
        raise ToolError(f"{a.path} and {b.path} have nothing to compare: {'; '.join(notes)}")
    differ = any(variable["status"] != EQUAL for variable in variables or ())
    differ = differ or any(any(part.values()) for part in (graphs or {}).values())
    return {
        "a": config.a,
        "b": config.b,
        "differ": differ,
        "notes": notes,
        "variables": variables,
        "graph": graphs,
    }


def _left_out(a: Side, b: Side, only: str | None) -> Iterator[str]:
    """Why what one has is not compared."""
    for wanted, one, other in ((VARIABLES, a.reader, b.reader), (GRAPH, a.meta, b.meta)):
        if only in (None, wanted) and (one is None) != (other is None):
            lacking, having = (a, b) if one is None else (b, a)
            yield f"{wanted}: {lacking.path} has none, {having.path} has"


def _open_side(path: str, flag: str, config: DiffConfig, hold: Hold) -> Side:
    """Opens what a path stands for: no value is read.

    Args:
      path: the prefix of a checkpoint or any file of it, a folder for its newest, a frozen graph,
        or the folder of a SavedModel.
      flag: that named it, for messages.
      config: what is asked for.
      hold: called with the checkpoint's prefix.

    Raises:
      CheckpointError, ToolError: it has nothing that is asked for, or is damaged.
    """
    prefix = _prefix(path, flag, hold, must=config.only == VARIABLES)
    try:
        reader = meta = None
        if config.only != GRAPH and prefix is not None:
            verify_checkpoint(prefix, [naming.INDEX_SUFFIX])
            reader = CheckpointReader(prefix)
        file = _graph_file(path, prefix, config.only)
        if file is not None:
            with config.limit.over(_READING):
                meta = open_model(file, config.max_meta_bytes)
    except CheckpointError as error:
        raise explain_if_gone(error, prefix or path, flag) from error
    if config.only == VARIABLES and reader is None:
        raise ToolError(f"{flag}={path} has no variables: expected a checkpoint or a SavedModel")
    return Side(path, reader, meta)


def _prefix(path: str, flag: str, hold: Hold, must: bool) -> str | None:
    """The prefix of the checkpoint that belongs to a path; None where there is none.

    Raises:
      CheckpointError: it is deleted just now.
      ToolError: there is none, or not one alone, and there `must` be one.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        path = os.path.dirname(path) or "."
    elif path.endswith(GRAPH_SUFFIXES) and not _is_folder(path):
        return None
    try:
        prefix = find_variables(path)
    except CheckpointError as error:
        alone = list_folder(path) if _is_folder(path) else ()
        if len(alone) == 1:
            return alone[0].prefix  # Of the format V1, which has no index to be found by.
        if must:
            raise ToolError(str(error).replace("--ckpt=", f"{flag}=", 1)) from error
        return None  # It may have a graph all the same; if not, that is said.
    hold(prefix)
    if _is_folder(os.path.dirname(prefix)) and named_entry(prefix).has_values:
        return prefix
    if _is_folder(path) and not _is_saved_model(path):
        raise CheckpointError(f"{prefix} was deleted while it was read")
    return None


def _graph_file(path: str, prefix: str | None, only: str | None) -> str | None:
    """What to read the graph from; None where it is not asked for, or there are only variables."""
    if only == VARIABLES:
        return None
    if prefix is not None and tf.io.gfile.exists(prefix + naming.META_SUFFIX):
        verify_checkpoint(prefix, [naming.META_SUFFIX])
        return prefix + naming.META_SUFFIX  # Of a folder, that of the very checkpoint.
    if prefix is None or only == GRAPH or _is_saved_model(path):
        return path
    return None


def _is_folder(path: str) -> bool:
    return bool(tf.io.gfile.isdir(path or "."))


def _is_saved_model(path: str) -> bool:
    return any(tf.io.gfile.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)


def _variable(found: VariableDifference) -> Record:
    values = found.values and found.values._asdict()
    for key in ("largest", "relative"):
        if values and isinstance(values[key], float):
            values[key] = json_value(np.asarray(values[key]))
    return {
        "name": found.name,
        "status": found.status,
        "a": found.a and {"dtype": found.a.dtype, "shape": [*found.a.shape]},
        "b": found.b and {"dtype": found.b.dtype, "shape": [*found.b.shape]},
        "values": values,
    }


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
    told = [
        f"{counts[status]} {status if status in (ONLY_A, ONLY_B) else f'differ in {status}'}"
        for status in _STATUSES
        if counts[status]
    ]
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
        yield from _first(
            [
                f"  ~ {c['name']}: {first_few(c['changes'], _MAX_CHANGES, '; ')}"
                for c in found["changed"]
            ]
        )


def _first(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_MAX_LINES]
    yield from _more(len(lines))
