"""What tools.verify does once its flags are read, and what it prints.

One checkpoint is verified, or a whole folder, which may be put right around its checkpoints; they
themselves are never touched.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from checkpoints import folder, lock, naming
from checkpoints.lock import LOCK_FILE, FolderLock
from checkpoints.naming import INDEX_SUFFIX
from errors import CheckpointError, ToolError, first_few, reason
from metagraph.opening import beside, find_variables, prefix_of
from metagraph.parsing import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from tools.command import Record, format_bytes
from tools.folder_entries import Leftover, clear, find_leftovers, list_folder, named_entry
from tools.verify import VerifyConfig
from tools.verify_checkpoint import (
    Findings,
    GraphChecks,
    Verdict,
    check_state,
    is_ours,
    to_name,
    verify_entry,
)

_OTHERWISE = "verify one checkpoint alone, by its prefix"
_MAX_NAMED = 10


class FolderVerdict(NamedTuple):
    """What is known of a folder.

    Attributes:
      path: its own.
      checkpoints: the verdict on each.
      state: on the state file; None where there is none to be expected.
      leftovers: of saves that were cut short.
      strays: names of files that look like a part of a checkpoint, and are of none.
    """

    path: str
    checkpoints: tuple[Verdict, ...]
    state: Findings | None = None
    leftovers: tuple[Leftover, ...] = ()
    strays: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether there is a checkpoint, and nothing is wrong."""
        whole = bool(self.checkpoints) and all(verdict.is_whole for verdict in self.checkpoints)
        return whole and self.is_tidy

    @property
    def is_tidy(self) -> bool:
        """Whether the state file is right, and nothing is left of a save."""
        return not self.leftovers and not (self.state and self.state.problems)


def verify_folder(path: str, graphs: GraphChecks, *, is_locked: bool = False) -> FolderVerdict:
    """Verifies each checkpoint of a folder, its state file, and what else is in it.

    Args:
      path: of the folder.
      graphs: looks into the graphs.
      is_locked: whether the caller holds the folder's lock.

    Raises:
      CheckpointError: the folder cannot be read, or somebody trains into it.
    """
    if not is_locked:
        _check_unused(path)
    verdicts = [verify_entry(entry, graphs) for entry in list_folder(path).entries]
    found = _judge(path, verdicts)
    if not (found.is_well or is_locked):
        _check_unused(path)  # A run that has begun since changes the folder.
    return found


def _judge(path: str, verdicts: Sequence[Verdict]) -> FolderVerdict:
    """What there is to say of a folder, given the verdicts on its checkpoints."""
    listing = list_folder(path)
    return FolderVerdict(
        path=path,
        checkpoints=tuple(verdicts),
        state=None if listing.is_saved_model else check_state(listing, verdicts),
        leftovers=tuple(find_leftovers(path)),
        strays=listing.strays,
    )


def _check_unused(path: str) -> None:
    user = lock.holder(path)
    if user is not None:
        raise CheckpointError(f"{path} is in use by {user}: wait for it to end, or {_OTHERWISE}")


def repair_folder(path: str, graphs: GraphChecks) -> tuple[FolderVerdict, list[str]]:
    """Clears leftovers, and writes the state file anew where it is lost or damaged.

    Each is one step that is done or not, so that a repair that is cut short is begun again by the
    next. A checkpoint that is damaged stays as it is, and is not named in the state file.

    Args:
      path: of the folder; its lock is held meanwhile.
      graphs: looks into the graphs.

    Returns:
      The verdict on the folder as it is then, and what was done, a line each.

    Raises:
      CheckpointError: someone else writes into the folder, or it cannot be read.
      ToolError: it cannot be written; what was done until then is said.
      OSError: it cannot be locked.
    """
    done: list[str] = []
    is_trained_in = tf.io.gfile.exists(os.path.join(path, LOCK_FILE))  # No stranger's folder is.
    with FolderLock(path, _OTHERWISE, keeps_file=is_trained_in):
        found = verify_folder(path, graphs, is_locked=True)
        try:
            for line in _repair(found):
                done.append(line)  # noqa: PERF402 (what was done before an error counts)
        except (tf.errors.OpError, OSError) as error:
            before = f"; done until then: {'; '.join(done)}" if done else ""
            raise ToolError(f"{path} cannot be repaired: {reason(error)}{before}") from error
        return _judge(path, found.checkpoints), done


def _repair(found: FolderVerdict) -> Iterator[str]:
    """Does one thing at a time and says what; the first of it frees space."""
    for leftover in found.leftovers:
        clear(found.path, leftover)
        names = first_few(leftover.names, _MAX_NAMED)
        yield f"cleared {names}, left by a save or a deletion that was cut short"
    state_file = os.path.join(found.path, naming.STATE_FILE)
    if found.state is None or (tf.io.gfile.exists(state_file) and not found.state.problems):
        return
    whole = to_name(found.checkpoints)
    if not whole:
        yield f"left {state_file} as it is: none is whole to name"
        return
    named = [verdict.entry.state_name for verdict in whole]
    if is_ours(found.checkpoints):
        folder.write_state(found.path, [verdict.entry.step or 0 for verdict in whole])
    else:
        folder.write_state_of(found.path, named)
    yield f"wrote {state_file}: it names {first_few(named, _MAX_NAMED)}; the newest is {named[-1]}"


def verify(config: VerifyConfig) -> Record:
    """Verifies, and repairs where that is asked for; see `as_record`.

    Raises:
      CheckpointError, ToolError: there is no such folder or checkpoint, or it cannot be read, or
        not repaired.
    """
    place, name = os.path.split(config.path)
    path = place or "." if name in SAVED_MODEL_FILES else config.path
    graphs = GraphChecks(config.max_meta_bytes, config.limit)
    # A folder may be called as a checkpoint is.
    is_checkpoint = not path.endswith("/") and tf.io.gfile.exists(prefix_of(path) + INDEX_SUFFIX)
    if is_checkpoint or not tf.io.gfile.isdir(path):
        if config.repair:
            raise ToolError(f"--repair is of a folder, not of {path} alone: name its folder")
        prefix = _prefix(path)
        verdict = verify_entry(named_entry(prefix), graphs)
        return as_record(FolderVerdict(os.path.dirname(prefix), (verdict,)))
    repaired: list[str] = []
    if config.repair:
        found, repaired = repair_folder(path, graphs)
    else:
        found = verify_folder(path, graphs)
    if not (found.checkpoints or found.leftovers or repaired):
        strays = f"; of none is {', '.join(found.strays[:3])}" if found.strays else ""
        raise ToolError(f"{found.path} holds no checkpoint{strays}")
    return as_record(found, repaired)


def _prefix(path: str) -> str:
    """The prefix of the checkpoint that a path which is no folder stands for."""
    if path.endswith(GRAPH_SUFFIXES):
        raise ToolError(f"{path} is no checkpoint: a graph that stands alone has no variables")
    try:
        return find_variables(path)
    except CheckpointError as error:
        prefix = prefix_of(path)
        near = beside(prefix, (INDEX_SUFFIX,))
        raise ToolError(
            f"there is no folder {path}, and no {prefix}{INDEX_SUFFIX}{near}"
        ) from error


def as_record(found: FolderVerdict, repaired: Sequence[str] = ()) -> Record:
    """JSON values.

    `folder`; `ok`, whether all is well; `repaired`, what --repair did, lines; `checkpoints`, each
    with `name`, `prefix`, `step` (null for a name that is not `my-model-<step>`), `ok`, `manifest`
    (whether it has one), `graph` (a path or null), `tensors` and `bytes` (null where they cannot be
    read), `problems` and `remarks`, lines; `state`, null where none is to be expected, else with
    `path`, `exists`, `ok`, `problems` and `remarks`; `leftovers`, each with `files`; `strays`,
    names of files that are of no checkpoint.
    """
    state_file = os.path.join(found.path, naming.STATE_FILE)
    state = found.state and {
        "path": state_file,
        "exists": tf.io.gfile.exists(state_file),
        "ok": not found.state.problems,
        "problems": [*found.state.problems],
        "remarks": [*found.state.remarks],
    }
    return {
        "folder": found.path,
        "ok": found.is_well,
        "repaired": [*repaired],
        "checkpoints": [_checkpoint(verdict) for verdict in found.checkpoints],
        "state": state,
        "leftovers": [{"files": [*leftover.names]} for leftover in found.leftovers],
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


def as_text(record: Record) -> str:
    """A line for each checkpoint, and one for each other thing there is to say."""
    return "\n".join(_lines(record))


def _lines(record: Record) -> Iterator[str]:
    yield from record["repaired"]
    for checkpoint in record["checkpoints"]:
        count = checkpoint["tensors"] or 0
        tensors = f"{count} tensor{'' if count == 1 else 's'}"
        told = f" ({tensors}, {format_bytes(checkpoint['bytes'] or 0)})"
        yield from _verdict_lines(checkpoint["prefix"], checkpoint, told)
    state = record["state"]
    if state is not None and (state["exists"] or state["problems"]):
        yield from _verdict_lines(state["path"], state)
    elif state is not None:
        yield from (f"remark: {state['path']}: {remark}" for remark in state["remarks"])
    for leftover in record["leftovers"]:
        names = first_few(leftover["files"], _MAX_NAMED)
        yield f"wrong: {names}: left by a save or a deletion that was cut short"
    if record["strays"]:
        yield f"remark: of no checkpoint: {first_few(record['strays'], _MAX_NAMED)}"


def _verdict_lines(name: str, record: Record, told: str = "") -> Iterator[str]:
    """`name: ok`, or what is wrong; then remarks."""
    yield f"{name}: " + (f"ok{told}" if record["ok"] else f"wrong: {'; '.join(record['problems'])}")
    yield from (f"  remark: {remark}" for remark in record["remarks"])
