"""What tools.inspect_checkpoint does once its flags are read: a folder's list, and all its texts.

What one checkpoint holds is in `checkpoint_contents.py`.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from absl import logging

import file_io
from checkpoints import manifest, naming
from checkpoints.folder import Saved, best_first, named_checkpoint
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import CheckpointReader, stored_tensors
from errors import CheckpointError, first_few
from metagraph.opening import find_variables
from tools.command import Record, format_bytes, table
from tools.folder_entries import (
    EMPTY_NAME,
    Entry,
    is_folder,
    list_folder,
    newest_of,
    stem_and_step,
)
from tools.inspect_checkpoint import InspectConfig

_TITLES = {"model": "model", "slot": "optimizer slots", "other": "other"}
_COUNTS = ("tensors", "values", "bytes")
_STATS = ("min", "max", "mean", "std", "nan", "inf")
_MAX_NAMED = 4  # Variables of one tensor.
_COMMITTED, _FOREIGN, _DAMAGED = "committed", "no manifest", "damaged"
_MAX_HELD = 8  # Of those, a few may be damaged; a process may open only so many files.


def inspect(config: InspectConfig) -> Record:
    """Looks into a checkpoint or a folder, and tells of it as `docs/json.md` has it.

    For people, a `value` is a text. Raises CheckpointError or ToolError.
    """
    return read_newest([config.ckpt], functools.partial(_inspect, config))


def _inspect(config: InspectConfig, hold: Hold) -> Record:
    if is_folder(config.ckpt):
        found = _list_checkpoints(config.ckpt, hold)
        if not (config.tensors or config.stats or config.filter is not None):
            return found
        newest = found["newest"]
        if newest is None:
            raise CheckpointError(f"--ckpt={config.ckpt}: none of its checkpoints is whole")
        prefix = os.path.join(config.ckpt, newest)
        logging.info("of %s the newest is read, %s", config.ckpt, newest)
    else:
        prefix = find_variables(config.ckpt)
        hold(prefix)
    # Imported where it is wanted: it reads graphs, and a list takes a third less without.
    from tools.checkpoint_contents import look_into

    return look_into(prefix, config)


def _list_checkpoints(path: str, hold: Hold) -> dict[str, Any]:
    """Looks into a folder, and calls `hold` with the prefixes of its newest checkpoints.

    Of each the index and the manifest are read, and the sizes of its files. What is deleted
    meanwhile is left out. Raises CheckpointError where the folder cannot be read, or holds none.
    """
    found = list_folder(path)
    for entry in found[: -_MAX_HELD - 1 : -1]:
        hold(entry.prefix)
    rows = {entry: _listed(entry) for entry in found}
    there = {entry.name for entry in list_folder(path)}
    rows = {e: row for e, row in rows.items() if row["state"] != _DAMAGED or e.name in there}
    if not rows:
        raise CheckpointError(f"--ckpt={path}: it holds no checkpoint")
    state_file = os.path.join(path, naming.STATE_FILE)
    is_file = file_io.exists(state_file) and not file_io.is_folder(state_file)
    named = named_checkpoint(state_file) if is_file else None
    newest = newest_of([e for e, row in rows.items() if row["state"] != _DAMAGED], named)
    called = None if newest is None else newest.state_name
    right = named is not None and called == (named or EMPTY_NAME)
    best = best_first(
        Saved(row["step"], test_accuracy=row["test_accuracy"])
        for row in rows.values()
        if row["state"] == _COMMITTED
    )
    return {
        "folder": path,
        "checkpoints": [*rows.values()],
        "newest": newest.name if newest else None,
        "best": naming.checkpoint_name(best[0].step) if best else None,
        "state_file": {"names": named, "right": right} if is_file else None,
    }


def _listed(entry: Entry) -> dict[str, Any]:
    """What is seen of a checkpoint without reading its values, as JSON values."""
    sizes, changed = dict[str, int](), None
    for path in entry.files:
        with suppress(FileNotFoundError):  # Those that train delete older checkpoints.
            found = file_io.stat(path)
            sizes[os.path.basename(path)] = 0 if found.is_folder else found.size
            changed = max(changed or 0.0, found.changed)
    state, said, problem = (_COMMITTED if entry.committed else _FOREIGN), None, None
    try:
        said = manifest.read_of(entry.prefix)
        for name, digest in said.files.items() if said else ():
            if (size := sizes.get(name, 0)) != digest.size:
                raise CheckpointError(f"{name} has {size} bytes, the manifest says {digest.size}")
        stored_tensors(CheckpointReader(entry.prefix))
    except CheckpointError as error:
        state, problem = _DAMAGED, str(error)
    return {
        "name": entry.name,
        "state": state,
        "step": stem_and_step(entry.name)[1],
        "saved_at": said.saved_at if said else changed,
        "bytes": sum(sizes.values()),
        "has_graph": entry.graph is not None,
        "test_accuracy": said.test_accuracy if said else None,
        "problem": problem,
    }


def as_text(record: Record) -> str:
    """The lines for any record of `inspect`."""
    if "folder" in record:
        return "\n".join(_folder_lines(record))
    if "tensors" in record:
        return "\n".join(_contents_lines(record))
    return "\n\n".join("\n".join(_value_lines(value)) for value in record["values"])


def _value_lines(value: Record) -> Iterator[str]:
    is_key = value["name"].removesuffix(":0") == value["key"]
    saved_as = "" if is_key else f", saved as {value['key']}"
    yield f"{value['name']}  {value['dtype']} {value['shape']}{saved_as}"
    yield value["value"]
    if "stats" in value:
        yield ", ".join(f"{name} {_number(value['stats'][name])}" for name in _STATS)


def _contents_lines(record: Record) -> Iterator[str]:
    yield from table([row for row in _head(record) if row[1]])
    for role, title in _TITLES.items():
        tensors = [tensor for tensor in record["tensors"] if tensor["role"] == role]
        if tensors:
            yield f"\n{title}"
            stats = _STATS if "stats" in tensors[0] else ()
            head = ["name", "dtype", "shape", "values", "bytes", *stats, ""]
            rows = [head, *map(_tensor_row, tensors)]
            yield from table(rows, right=range(3, len(head) - 1), indent=2)
    yield ""
    rows = [["", *_COUNTS]]
    for role, title in (*_TITLES.items(), ("all", "all")):
        rows.append([title, *(f"{record['totals'][role][count]:,}" for count in _COUNTS)])
    yield from table(rows, right=(1, 2, 3))


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


def _tensor_row(tensor: Record) -> list[str]:
    size = tensor["disk_bytes"] if tensor["bytes"] is None else tensor["bytes"]
    stats = tensor.get("stats", {})
    note = f"in {tensor['slices']} slices" if tensor["slices"] else ""
    others = [name for name in tensor["variables"] if name != tensor["path"]]
    if others and not note:
        note = f"is the variable {first_few(others, _MAX_NAMED)}"
    return [
        tensor["path"],
        tensor["dtype"],
        str(tensor["shape"]),
        f"{tensor['values']:,}",
        "" if size is None else f"{size:,}",
        *(_number(stats[name]) for name in _STATS if stats),
        note,
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _folder_lines(record: Record) -> Iterator[str]:
    entries = record["checkpoints"]
    size = format_bytes(sum(entry["bytes"] for entry in entries))
    counted = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    yield f"{record['folder']}: {counted}, {size}"
    head = ["name", "step", "saved", "size", "test accuracy", "state"]
    measured = any(entry["test_accuracy"] is not None for entry in entries)
    rows = [head, *(_listed_row(record, entry) for entry in entries)]
    shown = rows if measured else [[*row[:4], row[5]] for row in rows]
    yield from table(shown, right=(1, 3, 4) if measured else (1, 3), indent=2)
    yield _state_line(record)


def _listed_row(record: Record, entry: Record) -> list[str]:
    accuracy = entry["test_accuracy"]
    notes = [entry["state"]]
    notes += [note for note in ("newest", "best") if record[note] == entry["name"]]
    notes += [] if entry["has_graph"] else ["no .meta"]
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
