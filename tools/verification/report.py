"""What the command prints of a folder, for programs and for people."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from checkpoints import naming
from checkpoints.errors import first_few
from tools.common.leftovers import Leftover
from tools.common.output import Record, format_bytes
from tools.verification.findings import Findings, Verdict
from tools.verification.folder import FolderVerdict

_MAX_NAMED = 10


def as_record(found: FolderVerdict, repaired: Sequence[str] = ()) -> dict[str, Any]:
    """JSON values.

    `folder`; `ok`, whether all is well; `trained_by`, a process or null; `repaired`, what --repair
    did, lines; `checkpoints`, each with `name`, `prefix`, `step` (null for a name that is not
    `my-model-<step>`), `ok`, `manifest` (whether it has one), `graph` (a path or null), `tensors`
    and `bytes` (null where they cannot be read), `problems` and `remarks`, lines; `state`, null
    where none is to be expected, else with `path`, `exists`, `ok`, `problems` and `remarks`;
    `leftovers`, each with `files` and `recent` (another process may be writing it); `strays`,
    names of files that are of no checkpoint.
    """
    return {
        "folder": found.path,
        "ok": found.is_well,
        "trained_by": found.trained_by,
        "repaired": [*repaired],
        "checkpoints": [_checkpoint(verdict) for verdict in found.checkpoints],
        "state": None if found.state is None else _state(found.path, found.state),
        "leftovers": [_leftover(leftover) for leftover in found.leftovers],
        "strays": [*found.strays],
    }


def _checkpoint(verdict: Verdict) -> dict[str, Any]:
    entry = verdict.entry
    return {
        "name": entry.name,
        "prefix": entry.prefix,
        "step": entry.step,
        "ok": verdict.is_whole,
        "manifest": entry.committed,
        "graph": entry.graph,
        "tensors": verdict.tensors,
        "bytes": verdict.value_bytes,
        "problems": [*verdict.findings.problems],
        "remarks": [*verdict.findings.remarks],
    }


def _state(path: str, state: Findings) -> dict[str, Any]:
    return {
        "path": os.path.join(path, naming.STATE_FILE),
        "exists": tf.io.gfile.exists(os.path.join(path, naming.STATE_FILE)),
        "ok": not state.problems,
        "problems": [*state.problems],
        "remarks": [*state.remarks],
    }


def _leftover(leftover: Leftover) -> dict[str, Any]:
    return {"files": [*leftover.names], "recent": leftover.is_recent}


def as_text(record: Record) -> str:
    """A line for each checkpoint, and one for each other thing there is to say."""
    return "\n".join(_lines(record))


def _lines(record: Record) -> Iterator[str]:
    yield from record["repaired"]
    for checkpoint in record["checkpoints"]:
        count = checkpoint["tensors"] or 0
        found = (
            f"{count} tensor{'' if count == 1 else 's'}, {format_bytes(checkpoint['bytes'] or 0)}"
        )
        yield _line(checkpoint["prefix"], checkpoint, found)
    trained = record["trained_by"]
    state = record["state"]
    if state is not None and (state["exists"] or state["problems"]):
        yield _line(state["path"], state, "", trained)
    elif state is not None:
        yield from (f"remark: {state['path']}: {remark}" for remark in state["remarks"])
    for leftover in record["leftovers"]:
        names = first_few(leftover["files"], _MAX_NAMED)
        at_it = leftover["recent"] or trained
        what = "being written" if at_it else "left by a save or a deletion that was cut short"
        yield f"{'remark' if at_it else 'wrong'}: {names}: {what}"
    if record["strays"]:
        yield f"remark: of no checkpoint: {first_few(record['strays'], _MAX_NAMED)}"
    if trained:
        yield f"{record['folder']} is in use by {trained}"


def _line(name: str, record: Record, told: str, trained: str | None = None) -> str:
    """`name: ok`, or what is wrong; remarks after it."""
    if record["ok"]:
        line = f"{name}: ok" + (f" ({told})" if told else "")
    else:
        kind = "changing" if trained else "wrong"
        line = f"{name}: {kind}: {'; '.join(record['problems'])}"
    return "".join([line, *(f"\n  remark: {remark}" for remark in record["remarks"])])
