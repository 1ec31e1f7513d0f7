"""Puts a folder right around its checkpoints, which themselves are never touched."""

import os
from collections.abc import Iterator

import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.errors import first_few, reason
from checkpoints.lock import LOCK_FILE, FolderLock
from tools.common.errors import ToolError
from tools.common.leftovers import Leftover, clear
from tools.verification.findings import Verdict
from tools.verification.folder import FolderVerdict, verify_folder
from tools.verification.graph import GraphChecks
from tools.verification.state import is_ours, to_name

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
