"""What tools.verify does once its flags are read, and what it prints.

One checkpoint is verified, or a whole folder. The folder may be one that is trained into meanwhile.
It may be put right around its checkpoints, which themselves are never touched.
"""

import functools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import tensorflow as tf

from checkpoints import folder, lock, naming
from checkpoints.folder import Hold, names_in, read_newest
from checkpoints.lock import LOCK_FILE, FolderLock
from checkpoints.naming import INDEX_SUFFIX
from errors import CheckpointError, ToolError, first_few, reason
from metagraph.opening import beside, find_variables, prefix_of
from metagraph.parsing import GRAPH_SUFFIXES, SAVED_MODEL_FILES
from tools.command import Record, format_bytes
from tools.folder_entries import (
    Entry,
    Leftover,
    Listing,
    clear,
    find_leftovers,
    in_order,
    list_folder,
    named_entry,
)
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

_PASSES = 20  # Over a folder that changes all the time.
# A stock Saver, which takes no lock, deletes a checkpoint's files one by one.
_SETTLE_SECONDS = 0.3
_TRIES = 5  # On a checkpoint that is deleted or written anew while it is read.
Stamps: TypeAlias = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class FolderVerdict:
    """What is known of a folder.

    Attributes:
      path: its own.
      checkpoints: the verdict on each.
      state: on the state file; None where there is none to be expected.
      leftovers: of saves that were cut short, or of one that is under way.
      strays: names of files that look like a part of a checkpoint, and are of none.
      trained_by: who trains into it at present, None for nobody; then leftovers and the state file
        are in that process's hands, and nothing is wrong with them.
    """

    path: str
    checkpoints: tuple[Verdict, ...]
    state: Findings | None
    leftovers: tuple[Leftover, ...]
    strays: tuple[str, ...]
    trained_by: str | None = None

    @property
    def is_well(self) -> bool:
        """Whether there is a checkpoint, and nothing is wrong."""
        return self.has_whole_checkpoints and (self.is_tidy or self.trained_by is not None)

    @property
    def has_whole_checkpoints(self) -> bool:
        """Whether there are checkpoints, and each is whole."""
        return bool(self.checkpoints) and all(verdict.is_whole for verdict in self.checkpoints)

    @property
    def is_tidy(self) -> bool:
        """Whether the state file is right, and nothing is left of a save that is over."""
        left = any(not leftover.is_recent for leftover in self.leftovers)
        return not left and not (self.state and self.state.problems)


def verify_folder(
    path: str,
    graphs: GraphChecks,
    known: dict[str, Verdict] | None = None,
    *,
    is_locked: bool = False,
) -> FolderVerdict:
    """Verifies each checkpoint of a folder, its state file, and what else is in it.

    What looks wrong is looked at again until it is found the same twice, unless somebody trains
    into the folder: its leftovers and its state file are in those hands.

    Args:
      path: of the folder.
      graphs: looks into the graphs.
      known: checkpoint name -> verdict, of those that have been verified; it is added to.
      is_locked: whether the caller holds the folder's lock.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    known = {} if known is None else known
    before = None
    for _ in range(_PASSES):
        found = read_newest([path], functools.partial(_look, path, graphs, known))
        if not (found.is_tidy or is_locked):
            found = replace(found, trained_by=lock.holder(path))
        trained = found.trained_by is not None and bool(found.checkpoints)
        if found.is_well or trained or found == before:
            break
        before = found
        if not is_locked:
            time.sleep(_SETTLE_SECONDS)
        for verdict in found.checkpoints:
            if not verdict.is_whole:
                del known[verdict.entry.name]  # It may have been on its way out.
    return found


def _look(path: str, graphs: GraphChecks, known: dict[str, Verdict], hold: Hold) -> FolderVerdict:
    """One pass: verifies what is not known yet, then says what is there by then.

    Raises:
      CheckpointError: the folder cannot be read, or all that was there has gone.
    """
    entries = in_order(list_folder(path).entries)
    for entry in entries[-1:]:
        hold(entry.prefix)
    for entry in reversed(entries):  # The newest stay for longest.
        if entry.name not in known and (verdict := _verify_present(entry, graphs)):
            known[entry.name] = verdict
    found = _judge(list_folder(path), known)
    if entries and not found.checkpoints:
        raise CheckpointError(f"{entries[-1].prefix} was deleted while it was read")
    return found


def verify_named(prefix: str, graphs: GraphChecks) -> FolderVerdict:
    """Verifies the one checkpoint at a prefix, and nothing else of its folder.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    entry = named_entry(prefix)
    return FolderVerdict(os.path.dirname(prefix), (verify_entry(entry, graphs),), None, (), ())


def _verify_present(entry: Entry, graphs: GraphChecks) -> Verdict | None:
    """The verdict on a checkpoint; None where it is deleted before there is one."""
    verdict = None
    for _ in range(_TRIES):
        before = _stamps(entry.prefix)
        verdict = verify_entry(entry, graphs)
        if verdict.is_whole:
            break
        present = {e.prefix: e for e in list_folder(os.path.dirname(entry.prefix)).entries}
        if entry.prefix not in present:
            return None
        now = present[entry.prefix]._replace(name=entry.name)
        if now == entry and _stamps(entry.prefix) == before:
            break
        entry = now
    return verdict


def _stamps(prefix: str) -> Stamps:
    """The size and the time of change, in nanoseconds, of each file whose name so begins."""
    path, base = os.path.split(prefix)
    found: Stamps = {}
    for name in names_in(path):
        if name.startswith(base):
            try:
                stat = tf.io.gfile.stat(os.path.join(path, name))
            except tf.errors.OpError:
                continue  # It has gone since.
            found[name] = (stat.length, stat.mtime_nsec)
    return found


def _judge(listing: Listing, known: dict[str, Verdict]) -> FolderVerdict:
    """What there is to say of what is in the folder by now."""
    verdicts = tuple(known[entry.name] for entry in listing.entries if entry.name in known)
    return FolderVerdict(
        path=listing.path,
        checkpoints=verdicts,
        state=None if listing.is_saved_model else check_state(listing, verdicts),
        leftovers=tuple(find_leftovers(listing.path)),
        strays=listing.strays,
    )


# Puts a folder right around its checkpoints, which themselves are never touched.

_OTHERWISE = "only look, without --repair"
_MAX_NAMED = 10


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
    known: dict[str, Verdict] = {}
    is_trained_in = tf.io.gfile.exists(os.path.join(path, LOCK_FILE))  # No stranger's folder is.
    with FolderLock(path, _OTHERWISE, keeps_file=is_trained_in):
        found = verify_folder(path, graphs, known, is_locked=True)
        try:
            for line in _repair(found):
                done.append(line)  # noqa: PERF402 (what was done before an error counts)
        except (tf.errors.OpError, OSError) as error:
            before = f"; done until then: {'; '.join(done)}" if done else ""
            raise ToolError(f"{path} cannot be repaired: {reason(error)}{before}") from error
        return verify_folder(path, graphs, known, is_locked=True), done


def _repair(found: FolderVerdict) -> Iterator[str]:
    """Does one thing at a time and says what; the first of it frees space."""
    for leftover in found.leftovers:
        if not leftover.is_recent:
            clear(found.path, leftover)
            yield f"cleared {_described(leftover)}"
    if found.state is None or _is_right(found):
        return
    whole = to_name(found.checkpoints)
    if not whole:
        yield f"left {os.path.join(found.path, naming.STATE_FILE)} as it is: none is whole to name"
        return
    if is_ours(found.checkpoints):
        folder.write_state(found.path, [verdict.entry.step or 0 for verdict in whole])
    else:
        folder.write_state_of(found.path, [verdict.entry.state_name for verdict in whole])
    names = [verdict.entry.state_name for verdict in whole]
    yield (
        f"wrote {os.path.join(found.path, naming.STATE_FILE)}: it names "
        f"{first_few(names, _MAX_NAMED)}; the newest is {names[-1]}"
    )


def _is_right(found: FolderVerdict) -> bool:
    """Whether there is a state file, with nothing wrong."""
    there = tf.io.gfile.exists(os.path.join(found.path, naming.STATE_FILE))
    return bool(there) and not (found.state and found.state.problems)


def _described(leftover: Leftover) -> str:
    names = first_few(leftover.names, _MAX_NAMED)
    return f"{names}, left by a save or a deletion that was cut short"


# What the command prints of a folder, for programs and for people.


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


# What tools/verify.py does once its flags are read.


def verify(config: VerifyConfig) -> Record:
    """Verifies, and repairs where that is asked for; see `as_record`.

    Raises:
      CheckpointError, ToolError: there is no such folder or checkpoint, or it cannot be read, or
        not repaired.
    """
    path = _folder_of_model(config.path)
    graphs = GraphChecks(config.max_meta_bytes, config.limit)
    if not _is_folder(path):
        if config.repair:
            raise ToolError(f"--repair is of a folder, not of {path} alone: name its folder")
        return as_record(verify_named(_prefix(path), graphs))
    repaired: list[str] = []
    if config.repair:
        found, repaired = repair_folder(path, graphs)
    else:
        found = verify_folder(path, graphs)
    if not (found.checkpoints or found.leftovers or repaired):
        raise ToolError(_nothing_in(found))
    return as_record(found, repaired)


def _folder_of_model(path: str) -> str:
    """A SavedModel's folder, where its file is named."""
    place, name = os.path.split(path)
    return place or "." if name in SAVED_MODEL_FILES else path


def _is_folder(path: str) -> bool:
    """Whether a folder is meant: one may be called as a checkpoint is."""
    is_checkpoint = not path.endswith("/") and tf.io.gfile.exists(prefix_of(path) + INDEX_SUFFIX)
    return bool(tf.io.gfile.isdir(path)) and not is_checkpoint


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


def _nothing_in(found: FolderVerdict) -> str:
    strays = f"; of none is {', '.join(found.strays[:3])}" if found.strays else ""
    return f"{found.path} holds no checkpoint{strays}"
