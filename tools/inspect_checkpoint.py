"""Shows what a checkpoint holds, or which checkpoints a folder holds.

  python -m tools.inspect_checkpoint model1

lists the checkpoints of a folder: step, time, size, the newest, the best, and whether its state
file is right. One checkpoint, by its prefix or any of its files, is listed tensor by tensor: names,
dtypes, shapes, sizes, and which only the optimizer needs. For that its values are not read, however
large it is; --tensor reads those it names, --stats all that are listed.

  python -m tools.inspect_checkpoint model1/my-model-200
  python -m tools.inspect_checkpoint model1/my-model-200.meta --stats --filter=^conv1/
  python -m tools.inspect_checkpoint model --tensor=w:0,b:0 --format=json
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

from cli.fields import COMMAS, Check, Together, flag
from cli.terminal import postpone_tensorflow
from errors import first_few
from prediction.request import Limits
from tools import command
from tools.command import Record

_TITLES = {"model": "model", "slot": "optimizer slots", "other": "other"}
_COUNTS = ("tensors", "values", "bytes")
_STATS = ("min", "max", "mean", "std", "nan", "inf")
_MAX_NAMED = 4  # Variables of one tensor.


@dataclass(frozen=True, kw_only=True)
class InspectConfig(command.Printed, Limits):
    """A checkpoint or a folder, and what is wanted of it."""

    GROUP: ClassVar = "selection"
    CHECKS: ClassVar = (
        Together(
            ("tensor", "filter"),
            lambda tensors, pattern: not tensors or pattern is None,
            "--tensor names tensors, --filter narrows the list: give one of them",
        ),
    )

    ckpt: str = command.checkpoint(
        "A checkpoint: its prefix or any file of it, of TensorFlow's formats V1 and V2; the folder "
        "of a SavedModel; or a folder of checkpoints, for their list, or with one of the flags "
        "below for the newest."
    )
    tensors: Sequence[str] = flag(
        "Tensors whose values to print: keys of the checkpoint, or variables of its graph that are "
        "saved whole; name:0 means name.",
        (),
        name="tensor",
        many=COMMAS,
        check=Check(all, "must be names, separated by commas"),
    )
    stats: bool = flag(
        "Also the least and greatest value, mean and standard deviation of the finite values of "
        "each tensor, and how many are NaN or infinite.",
        False,
    )
    filter: str | None = command.name_filter(
        "Only list tensors whose names this regular expression is found in.", None
    )


def main(config: InspectConfig) -> None:
    """Inspects what is asked for."""
    postpone_tensorflow()
    from tools.inspecting import inspect

    command.show(inspect(config), as_text, config.format)


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
    yield from command.table([row for row in _head(record) if row[1]])
    for role, title in _TITLES.items():
        tensors = [tensor for tensor in record["tensors"] if tensor["role"] == role]
        if tensors:
            yield f"\n{title}"
            stats = _STATS if "stats" in tensors[0] else ()
            head = ["name", "dtype", "shape", "values", "bytes", *stats, ""]
            rows = [head, *map(_tensor_row, tensors)]
            yield from command.table(rows, right=range(3, len(head) - 1), indent=2)
    yield ""
    rows = [["", *_COUNTS]]
    for role, title in (*_TITLES.items(), ("all", "all")):
        rows.append([title, *(f"{record['totals'][role][count]:,}" for count in _COUNTS)])
    yield from command.table(rows, right=(1, 2, 3))


def _head(record: Record) -> Iterator[tuple[str, str]]:
    files, size = len(record["files"]), sum(file["bytes"] for file in record["files"])
    yield "checkpoint", record["checkpoint"]
    where = f"{files} data files" if files > 1 else "1 data file"
    yield "format", f"{record['format']}, {command.format_bytes(size)} in {where}"
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
    size = command.format_bytes(sum(entry["bytes"] for entry in entries))
    counted = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    yield f"{record['folder']}: {counted}, {size}"
    head = ["name", "step", "saved", "size", "test accuracy", "state"]
    measured = any(entry["test_accuracy"] is not None for entry in entries)
    rows = [head, *(_listed_row(record, entry) for entry in entries)]
    shown = rows if measured else [[*row[:4], row[5]] for row in rows]
    yield from command.table(shown, right=(1, 3, 4) if measured else (1, 3), indent=2)
    yield _state_line(record)


def _listed_row(record: Record, entry: Record) -> list[str]:
    accuracy = entry["test_accuracy"]
    notes = [entry["state"]]
    notes += [note for note in ("newest", "best") if record[note] == entry["name"]]
    notes += ["may be the newest"] if entry["name"] in record["may_be_newest"] else []
    notes += [] if entry["has_graph"] else ["no .meta"]
    notes += [entry["problem"]] if entry["problem"] else []
    return [
        entry["name"],
        "" if entry["step"] is None else str(entry["step"]),
        _time(entry["saved_at"]),
        command.format_bytes(entry["bytes"]),
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


if __name__ == "__main__":
    command.run_command(main, InspectConfig, __doc__)
