"""A whole folder of checkpoints, which may be one that is trained into meanwhile."""

import functools
import os
import time
from dataclasses import dataclass, replace
from typing import TypeAlias

import tensorflow as tf

from checkpoints import lock
from checkpoints.errors import CheckpointError
from checkpoints.folder import names_in
from checkpoints.newest import Hold, read_newest
from tools.common.checkpoint_order import in_order
from tools.common.folder_entries import Entry, Listing, list_folder, named_entry
from tools.common.leftovers import Leftover, find_leftovers
from tools.verification.checkpoint import verify_entry
from tools.verification.findings import Findings, Verdict
from tools.verification.graph import GraphChecks
from tools.verification.state import check_state

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
