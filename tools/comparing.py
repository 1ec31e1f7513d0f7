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

import file_io
from checkpoints import naming
from checkpoints.folder import explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile
from metagraph.opening import GRAPH_SUFFIXES, SAVED_MODEL_FILES, find_variables, open_model
from tools.command import Record, table
from tools.diff import DiffConfig
from tools.differences import (
    DTYPE,
    EQUAL,
    ONLY_A,
    ONLY_B,
    SHAPE,
    VALUES,
    compare_graphs,
    compare_variables,
)
from tools.folder_entries import is_folder, named_entry

VARIABLES, GRAPH = "variables", "graph"
_STATUSES = {key: f"differ in {key}" for key in (VALUES, SHAPE, DTYPE)}
_STATUSES |= {key: key for key in (ONLY_A, ONLY_B)}
_HEADER = ["variable", "differs in", "largest", "relative", "elements"]
_MAX_LINES = 10  # Of a list, in text.
_MAX_CHANGES = 4  # Of a node, in text.
_MAX_NAMED = 5


class Side(NamedTuple):
    """One of the two, with what of it is compared: its checkpoint, its graph."""

    path: str
    reader: CheckpointReader | None
    meta: MetaGraphFile | None


def diff(config: DiffConfig) -> Record:
    """Compares what both have and tells what differs, as `docs/json.md` has it.

    Raises CheckpointError or ToolError where one of them cannot be read, or they have nothing in
    common.
    """
    return read_newest([config.a, config.b], functools.partial(_diff, config))


def _diff(config: DiffConfig, hold: Hold) -> Record:
    a = _open_side(config.a, "--a", config, hold)
    b = _open_side(config.b, "--b", config, hold)
    pattern = re.compile(config.filter)
    variables = graphs = None
    if a.reader is not None and b.reader is not None:
        variables = compare_variables(a.reader, b.reader, pattern, config.tolerance)
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

    Raises:
      CheckpointError, ToolError: it has nothing that is asked for, or is damaged.
    """
    is_file = os.path.basename(path) in SAVED_MODEL_FILES
    place = os.path.dirname(path) or "." if is_file else path
    prefix = _prefix(place, flag, config.only, hold)
    try:
        reader = meta = None
        if config.only != GRAPH and prefix is not None:
            verify_checkpoint(prefix, [naming.INDEX_SUFFIX])
            reader = CheckpointReader(prefix)
        file = _graph_file(place, prefix, config.only)
        if file is not None:
            with config.limit.over("reading the graph"):
                meta = open_model(file, config.max_meta_bytes)
    except CheckpointError as error:
        raise explain_if_gone(error, prefix or path, flag) from error
    if config.only == VARIABLES and reader is None:
        raise ToolError(f"{flag}={path} has no variables: expected a checkpoint or a SavedModel")
    return Side(path, reader, meta)


def _prefix(path: str, flag: str, only: str | None, hold: Hold) -> str | None:
    """The prefix of the checkpoint that belongs to a path; None where there is none.

    Raises:
      ToolError: there is none, or not one alone, and only variables are asked for.
    """
    if path.endswith(GRAPH_SUFFIXES) and not file_io.is_folder(path):
        return None
    try:
        prefix = find_variables(path)
    except CheckpointError as error:
        if only == VARIABLES:
            raise ToolError(str(error).replace("--ckpt=", f"{flag}=", 1)) from error
        return None  # It may have a graph all the same; if not, that is said.
    hold(prefix)
    if is_folder(path):
        return prefix  # Its values were there a moment ago.
    is_there = file_io.is_folder(os.path.dirname(prefix) or ".")
    return prefix if is_there and named_entry(prefix).has_values else None


def _graph_file(path: str, prefix: str | None, only: str | None) -> str | None:
    """What to read the graph from; None where it is not asked for, or there are only variables."""
    if only == VARIABLES:
        return None
    if prefix is not None and file_io.exists(prefix + naming.META_SUFFIX):
        verify_checkpoint(prefix, [naming.META_SUFFIX])
        return prefix + naming.META_SUFFIX  # Of a folder, that of the very checkpoint.
    return path if prefix is None or only == GRAPH or _is_saved_model(path) else None


def _is_saved_model(path: str) -> bool:
    return any(file_io.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)


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
    if not variables:
        yield "variables: none are compared"
        return
    counts = Counter(variable["status"] for variable in variables)
    told = [f"{counts[key]} {text}" for key, text in _STATUSES.items() if counts[key]]
    yield f"variables: {', '.join([f'{counts[EQUAL]} equal', *told])}"
    differing = [variable for variable in variables if variable["status"] != EQUAL]
    if differing:
        rows = [_HEADER, *map(_row, differing[:_MAX_LINES])]
        yield from table(rows, right=(2, 3, 4), indent=2)
    yield from _more(len(differing))
    valued = [variable for variable in variables if variable["values"] is not None]
    if nans := [variable["name"] for variable in valued if variable["values"]["equal_nans"]]:
        yield f"  NaN at the same places in both, taken as equal: {first_few(nans, _MAX_NAMED)}"
    bytewise = [
        f"{variable['name']} (up to {_shown(variable['values']['largest'])})"
        for variable in valued
        if variable["status"] == EQUAL and not variable["values"]["equal_bytes"]
    ]
    if bytewise:
        yield f"  taken as equal, of other bytes: {first_few(bytewise, _MAX_NAMED)}"


def _more(count: int) -> Iterator[str]:
    if count > _MAX_LINES:
        yield f"  and {count - _MAX_LINES} more, which --format=json has"


def _row(variable: Record) -> list[str]:
    values = variable["values"]
    what = variable["status"]
    if what in (SHAPE, DTYPE):
        what = f"{what}: {_kind(variable['a'])} -> {_kind(variable['b'])}"
    elif what in (ONLY_A, ONLY_B):
        what = f"{what}: {_kind(variable['a'] or variable['b'])}"
    if values is None:
        return [variable["name"], what, "", "", ""]
    numbers = [_shown(values["largest"]), _shown(values["relative"])]
    size = int(np.prod(variable["a"]["shape"], dtype=object))
    return [variable["name"], what, *numbers, f"{values['differing']} of {size}"]


def _kind(spec: Record) -> str:
    return f"{spec['dtype']} {spec['shape']}"


def _shown(number: float | str | None) -> str:
    if isinstance(number, float):
        return f"{number:.6g}"
    return "" if number is None else str(number)


def _graph_lines(graph: Record) -> Iterator[str]:
    if not any(any(found.values()) for found in graph.values()):
        yield "graphs: equal in nodes, functions, signatures and collections"
    for kind, found in graph.items():
        if not any(found.values()):
            continue
        yield f"{kind}: {', '.join(f'{len(told)} {what}' for what, told in found.items())}"
        changed = [
            f"{change['name']}: {first_few(change['changes'], _MAX_CHANGES, '; ')}"
            for change in found["changed"]
        ]
        for sign, texts in (("+", found["added"]), ("-", found["removed"]), ("~", changed)):
            yield from (f"  {sign} {text}" for text in texts[:_MAX_LINES])
            yield from _more(len(texts))
