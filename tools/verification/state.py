"""Whether the file `checkpoint` of a folder says what is there.

Format: the text of `tensorflow/python/training/checkpoint_state.proto`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import text_format

from checkpoints import naming
from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError, first_few
from tools.common.checkpoint_order import in_order, newest_of
from tools.common.folder_entries import EMPTY_NAME, Listing
from tools.verification.findings import Findings, Verdict

_MAX_BYTES = 1 << 20
_MAX_NAMED = 10


class State(NamedTuple):
    """What a state file says, as it stands there.

    Attributes:
      newest: a checkpoint's name, or its path.
      kept: likewise, of all that it names.
    """

    newest: str
    kept: tuple[str, ...]


def read_state(path: str) -> State | None:
    """Reads a folder's state file; None where it has none.

    Raises:
      CheckpointError: it is damaged.
    """
    file = os.path.join(path, naming.STATE_FILE)
    if not tf.io.gfile.exists(file) or tf.io.gfile.isdir(file):
        return None
    content = read_bounded(file, _MAX_BYTES)
    # The public way to an empty message of this kind.
    state = tf.compat.v1.train.generate_checkpoint_state_proto(".", ".")
    state.Clear()
    try:
        text_format.Parse(content.decode(), state)
    except (text_format.ParseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"it is damaged: {reason}") from error
    if not state.model_checkpoint_path:
        raise CheckpointError("it is damaged: it names no newest checkpoint")
    return State(state.model_checkpoint_path, tuple(state.all_model_checkpoint_paths))


def to_name(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The checkpoints that a state file should name, the newest last: whole ones alone.

    In a folder of ours, those called `my-model-<step>`; elsewhere all.
    """
    whole = {verdict.entry: verdict for verdict in verdicts if verdict.is_whole}
    ordered = [whole[entry] for entry in in_order(whole)]
    if is_ours(verdicts):
        return [verdict for verdict in ordered if verdict.entry.step is not None]
    return ordered


def is_ours(verdicts: Sequence[Verdict]) -> bool:
    """Whether a trainer of this project writes the state file of these checkpoints."""
    return any(verdict.entry.committed for verdict in verdicts)


def check_state(listing: Listing, verdicts: Sequence[Verdict]) -> Findings:
    """Compares the state file with the checkpoints that there are.

    Args:
      listing: of the folder.
      verdicts: on its checkpoints.
    """
    expected, ours = to_name(verdicts), is_ours(verdicts)
    try:
        state = read_state(listing.path)
    except CheckpointError as error:
        return Findings([str(error)])
    if state is None:
        line = "not there, so that tf.train.latest_checkpoint finds nothing"
        return Findings([line]) if ours and expected else Findings(remarks=[line])
    found = _named(state, listing, {verdict.entry.state_name: verdict for verdict in verdicts})
    newest = newest_of((verdict.entry for verdict in expected), _base(state.newest))
    if newest is None or found.problems:
        return found
    committed = [verdict.entry.state_name for verdict in expected if verdict.entry.committed]
    named = _base(state.newest)  # A trainer names those with a manifest alone.
    if named not in (newest.state_name, *committed[-1:]):
        line = f"its newest is {named}, that of the folder is {newest.state_name}"
        (found.problems if ours else found.remarks).append(line)
    unnamed = [name for name in committed if name not in map(_base, state.kept)]
    if unnamed:
        found.problems.append(f"it does not name {first_few(unnamed, _MAX_NAMED)}")
    return found


def _named(state: State, listing: Listing, verdicts: Mapping[str, Verdict]) -> Findings:
    """Looks for each checkpoint that the file names."""
    found = Findings()
    there = {entry.state_name for entry in listing.entries}
    paths = list(dict.fromkeys([*state.kept, state.newest]))
    inside = [path for path in paths if _is_inside(path, listing.path)]
    gone = [path for path in inside if _base(path) not in there]
    gone += [path for path in paths if path not in inside and not _exists(path, listing.path)]
    if gone:
        found.problems.append(f"it names {first_few(gone, _MAX_NAMED)}: not there")
    damaged = [p for p in inside if _base(p) in verdicts and not verdicts[_base(p)].is_whole]
    if damaged:
        found.problems.append(f"it names {first_few(damaged, _MAX_NAMED)}: not whole")
    absolute = [path for path in paths if os.path.isabs(path) and path not in gone]
    if absolute:
        found.remarks.append(
            f"it names absolute paths, such as {absolute[0]}: they do not move with the folder"
        )
    return found


def _base(path: str) -> str:
    return os.path.basename(path) or EMPTY_NAME


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path of a state file, relative or not, is of a file in this very folder."""
    place = os.path.dirname(os.path.join(os.path.abspath(folder), path))
    return os.path.normpath(place) == os.path.abspath(folder)


def _exists(path: str, folder: str) -> bool:
    """Whether there is a checkpoint at a path that leads elsewhere; nothing of it is opened."""
    prefix = os.path.join(folder, path)
    return any(os.path.exists(prefix + suffix) for suffix in (naming.INDEX_SUFFIX, ""))
