"""One inspection from start to end: what tools.inspect_checkpoint does once its flags are read.

What it has found is also told as lines for people.
"""

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import tensorflow as tf
from absl import logging

from checkpoints import naming
from checkpoints.folder import Hold, read_newest
from errors import CheckpointError, first_few
from metagraph.opening import find_variables
from metagraph.parsing import SAVED_MODEL_FILES
from tools.checkpoint_list import list_checkpoints
from tools.command import Record, format_bytes, table
from tools.inspect_checkpoint import InspectConfig

_TITLES = {"model": "model", "slot": "optimizer slots", "other": "other"}
_STATS = ("min", "max", "mean", "std", "nan", "inf")
_LINE_END = re.compile(r"[\t\n]")  # Whatever else a terminal obeys is escaped where it is printed.
_MAX_NAMED = 4  # Files or variables of one tensor.


def inspect(config: InspectConfig) -> Record:
    """Looks into a checkpoint or a folder.

    Returns:
      As JSON values, one of three records, told by its keys:

      - of a folder, where no tensor of it is asked for: what `list_checkpoints` gives.
      - where values are asked for: `checkpoint`, the prefix; `values`, a list of `name` (as it was
        asked for), `key`, `variable` (of the graph, where it is not all of its key's tensor),
        `dtype`, `shape`, `value` (a number, text or nested list; for people, a text), and with
        --stats `stats`.
      - else: `checkpoint`; `format`, `V1` or `V2`; `files` of values, each `name` and `bytes`;
        `graph`, its path or null; `manifest`, null or `step`, `saved_at`, `environment`, `config`,
        `test_accuracy`; `tensors`, a list of `key`, `path` (of objects; else the key), `dtype`,
        `shape`, `values` (how many), `bytes` (in memory; null of texts), `disk_bytes` (null in
        V1), `role` (`model`, `slot` or `other`), `slices` (that it was saved in; 0 where whole,
        null where unknown), `files`, `variables`, and with --stats `stats`; `totals`, role or
        `all` -> `tensors`, `values`, `bytes`, `disk_bytes`.

      `stats` is `min`, `max`, `mean` and `std` of the finite values, each null where there is
      none, and the counts `nan` and `inf`.

    Raises:
      CheckpointError, ToolError: one line for the user.
    """
    return read_newest([config.ckpt], functools.partial(_inspect, config))


def _inspect(config: InspectConfig, hold: Hold) -> Record:
    """Imports what reads tensors and graphs only where it is wanted: a list takes a third less."""
    wants_tensors = bool(config.tensors) or config.stats or config.filter is not None
    if _is_folder(config.ckpt):
        found = list_checkpoints(config.ckpt, hold)
        if not wants_tensors:
            return found
        newest = found["newest"]
        if newest is None:
            raise CheckpointError(f"--ckpt={config.ckpt}: none of its checkpoints is whole")
        prefix = os.path.join(config.ckpt, newest)
        logging.info("of %s the newest is read, %s", config.ckpt, newest)
    else:
        prefix = find_variables(config.ckpt)
        hold(prefix)
    from tools.checkpoint_contents import contents_record, read_contents, values_record

    with config.limit.over("reading the graph"):
        contents = read_contents(prefix, config.max_meta_bytes)
    return values_record(contents, config) if config.tensors else contents_record(contents, config)


def _is_folder(path: str) -> bool:
    """Whether a path stands for a folder's list: not for a checkpoint that is called like one."""
    if tf.io.gfile.exists(path + naming.INDEX_SUFFIX) or not tf.io.gfile.isdir(path):
        return False
    return not any(tf.io.gfile.exists(os.path.join(path, name)) for name in SAVED_MODEL_FILES)


def as_text(record: Record) -> str:
    """The lines for any record of `inspect`."""
    if "folder" in record:
        return "\n".join(_folder_lines(record))
    if "tensors" in record:
        return "\n".join(_contents_lines(record))
    return "\n\n".join("\n".join(_value_lines(value)) for value in record["values"])


def _value_lines(value: Record) -> Iterator[str]:
    saved_as = (
        "" if value["name"].removesuffix(":0") == value["key"] else f", saved as {value['key']}"
    )
    yield f"{value['name']}  {value['dtype']} {value['shape']}{saved_as}"
    yield value["value"]
    if "stats" in value:
        yield ", ".join(f"{name} {_number(value['stats'][name])}" for name in _STATS)


def _contents_lines(record: Record) -> Iterator[str]:
    yield from _table([row for row in _head(record) if row[1]])
    for role, title in _TITLES.items():
        tensors = [tensor for tensor in record["tensors"] if tensor["role"] == role]
        if tensors:
            yield f"\n{title}"
            yield from _tensor_lines(tensors, len(record["files"]) > 1)
    yield ""
    yield from _total_lines(record["totals"])


def _head(record: Record) -> Iterator[tuple[str, str]]:
    files, size = len(record["files"]), sum(file["bytes"] for file in record["files"])
    yield "checkpoint", record["checkpoint"]
    where = f"{files} data files" if files > 1 else "1 data file"
    yield "format", f"{record['format']}, {format_bytes(size)} in {where}"
    graph = record["graph"]
    yield "graph", graph or "none: the names have to tell which tensors are slots"
    said = record["manifest"]
    if said is None:
        return
    yield "step", f"{said['step']}, saved {_time(said['saved_at'])}"
    accuracy = said["test_accuracy"]
    yield "test accuracy", "" if accuracy is None else f"{accuracy:.4f}"
    yield "written by", _facts(said["environment"])
    yield "config", _facts(said["config"])


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in facts.items()
        if value is not None
    )


def _time(seconds: float | None) -> str:
    """A time that no clock has, which only a hostile manifest gives, as its number."""
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError, TypeError):
        return str(seconds)


def _tensor_lines(tensors: Sequence[Record], has_shards: bool) -> list[str]:
    with_stats = "stats" in tensors[0]
    head = ["name", "dtype", "shape", "values", "bytes", *(_STATS if with_stats else ()), ""]
    rows = [_tensor_row(tensor, has_shards) for tensor in tensors]
    return _table([head, *rows], right=range(3, len(head) - 1), indent=2)


def _tensor_row(tensor: Record, has_shards: bool) -> list[str]:
    size = tensor["bytes"] if tensor["bytes"] is not None else tensor["disk_bytes"]
    stats = tensor.get("stats", {})
    return [
        tensor["path"],
        tensor["dtype"],
        str(tensor["shape"]),
        f"{tensor['values']:,}",
        "" if size is None else f"{size:,}",
        *(_number(stats[name]) for name in _STATS if stats),
        "; ".join(_notes(tensor, has_shards)),
    ]


def _notes(tensor: Record, has_shards: bool) -> Iterator[str]:
    if tensor["slices"]:
        yield f"in {tensor['slices']} slices"
    if has_shards and tensor["files"]:
        files = [file.rpartition(".")[2] for file in tensor["files"]]
        yield "in " + first_few(files, _MAX_NAMED)
    others = [name for name in tensor["variables"] if name != tensor["path"]]
    if others and not tensor["slices"]:
        yield f"is the variable {first_few(others, _MAX_NAMED)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _total_lines(totals: Record) -> list[str]:
    rows = [["", "tensors", "values", "bytes"]]
    for role, title in (*_TITLES.items(), ("all", "all")):
        total = totals[role]
        size = f"{total['bytes']:,}"
        rows.append([title, f"{total['tensors']:,}", f"{total['values']:,}", size])
    return _table(rows, right=(1, 2, 3))


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """As `table`, for names from a file: a line end in one would begin a line of its own."""
    return table([[_LINE_END.sub(_escaped, cell) for cell in row] for row in rows], right, indent)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _folder_lines(record: Record) -> Iterator[str]:
    entries = record["checkpoints"]
    size = format_bytes(sum(entry["bytes"] for entry in entries))
    counted = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    yield f"{record['folder']}: {counted}, {size}"
    head = ["name", "step", "saved", "size", "test accuracy", "state"]
    measured = any(entry["test_accuracy"] is not None for entry in entries)
    rows = [head, *(_listed_row(record, entry) for entry in entries)]
    shown = rows if measured else [[*row[:4], row[5]] for row in rows]
    yield from _table(shown, right=(1, 3, 4) if measured else (1, 3), indent=2)
    yield _state_line(record)


def _listed_row(record: Record, entry: Record) -> list[str]:
    accuracy = entry["test_accuracy"]
    notes = [entry["state"]]
    notes += [note for note in ("newest", "best") if record[note] == entry["name"]]
    notes += [] if entry["has_graph"] or entry["state"] == "leftover" else ["no .meta"]
    notes += [entry["problem"]] if entry["problem"] else []
    return [
        entry["name"],
        "" if entry["step"] is None else str(entry["step"]),
        _time(entry["saved_at"]),
        format_bytes(entry["bytes"]),
        "" if accuracy is None else f"{accuracy:.4f}",
        ", ".join(notes),
    ]


def _state_line(record: Record) -> str:
    state, newest = record["state_file"], record["newest"]
    if state is None:
        return "there is no state file"
    if state["names"] is None:
        return "the state file names no checkpoint"
    if state["right"]:
        return f"the state file names the newest, {state['names']}"
    is_there = any(entry["name"] == state["names"] for entry in record["checkpoints"])
    wrong = "which is not the newest that is whole" if is_there else "which is not there"
    hint = f"; the newest is {newest}" if newest else ""
    return f"the state file names {state['names'] or 'an empty name'}, {wrong}{hint}"
