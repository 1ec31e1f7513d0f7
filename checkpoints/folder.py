"""A folder of checkpoints: which there are, which is meant, which stay, which is the best.

All follows from what the folder holds, not from what a process remembers.
"""

import difflib
import math
import ntpath
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from absl import logging
from google.protobuf import text_encoding

import file_io
from checkpoints import layout, lock
from errors import CheckpointError, first_few, nearest_names

_SECONDS_PER_HOUR = 3600.0
_MAX_STATE_BYTES = 1 << 20
_OF_ONE_COPY = 1.0  # Seconds between files that were copied at once.
_MOST_NAMED = 10
_OURS = {layout.MANIFEST_SUFFIX, layout.PENDING_SUFFIX}  # What a checkpoint of ours has one of.


def files_by_step(folder: str) -> dict[int, set[str]]:
    """The suffixes of the files of each step, by rising step; empty where there is no folder."""
    place = folder or "."
    # Not `isdir`, to which a folder that cannot be reached for a moment is none.
    if not file_io.exists(place) or (file_io.is_local(place) and os.path.isfile(place)):
        return {}
    suffixes: dict[int, set[str]] = defaultdict(set)
    for name in file_io.names_in(place):
        if found := layout.split_name(name):
            suffixes[found[0]].add(found[1])
    return dict(sorted(suffixes.items()))


def usable_steps(folder: str) -> list[int]:
    """The steps that have a checkpoint, ours or not, by rising step."""
    return [step for step, found in files_by_step(folder).items() if layout.is_usable(found)]


def committed_steps(folder: str) -> list[int]:
    """The steps whose checkpoint is ours and was written to its end, by rising step."""
    found = files_by_step(folder).items()
    return [step for step, suffixes in found if layout.MANIFEST_SUFFIX in suffixes]


def is_whole(folder: str, step: int) -> bool:
    """Whether all files of a checkpoint of ours are there; what is in them is not looked at."""
    expected = {*layout.CONTENT_SUFFIXES, layout.MANIFEST_SUFFIX}
    return expected <= files_by_step(folder).get(step, set())


def own_names(folder: str) -> list[str]:
    """The names of a folder's files but for copies, which are said and left alone."""
    names = file_io.names_in(folder)
    known = {*names}
    copies = [name for name in names if layout.is_copy(name, known)]
    if copies:
        logging.info("left alone in %s, as copies: %s", folder, first_few(copies, _MOST_NAMED))
    return [name for name in names if name not in copies]


def runs_by_age(folder: str, names: Collection[str]) -> list[tuple[float, list[str]]]:
    """When each run was last written, and its checkpoints by rising step; the newest run last.

    Those of one run are `model.ckpt-<step>`; ours, `my-model-<step>`, come after all others.
    """
    runs = defaultdict[tuple[str, bool], list[tuple[int, str]]](list)
    for name in names:
        stem, step = layout.stem_and_step(name)
        runs[stem, step is None].append((step or 0, name))
    timed = []
    for run in runs.values():
        sorted_names = [name for _, name in sorted(run)]
        age = max(_written(folder, name) for name in sorted_names) if len(runs) > 1 else 0.0
        timed.append((_is_ours(sorted_names[0]), age, sorted_names))
    return [(age, run) for _, age, run in sorted(timed)]


def newest_of(folder: str, names: Collection[str]) -> list[str]:
    """The newest of some checkpoints in a folder; several, one of each run, where nothing tells.

    Among several runs the state file decides, or else the time of the last write; files that were
    written within a second of each other decide nothing.
    """
    runs = runs_by_age(folder, [name for name in names if _is_ours(name)] or names)
    if len(runs) > 1:
        named = named_checkpoint(os.path.join(folder, layout.STATE_FILE))
        late = [run for run in runs if runs[-1][0] - run[0] < _OF_ONE_COPY]
        runs = [run for run in runs if named in run[1]] or late
    return [run[-1] for _, run in runs]


def _is_ours(name: str) -> bool:
    return layout.split_name(name + layout.MANIFEST_SUFFIX) is not None


def _written(folder: str, name: str) -> float:
    """When a checkpoint was written, in seconds since 1970: its index last of all its values."""
    for suffix in (layout.INDEX_SUFFIX, "", layout.META_SUFFIX):
        with suppress(OSError):
            return file_io.stat(os.path.join(folder, name + suffix)).changed
    return 0.0


def remains(folder: str) -> list[str]:
    """The files of variables whose checkpoint is lost: its `.index` and its manifest are gone."""
    return [
        layout.checkpoint_name(step) + layout.DATA_SUFFIX
        for step, found in files_by_step(folder).items()
        if layout.DATA_SUFFIX in found and not found & {layout.INDEX_SUFFIX, *_OURS}
    ]


def explain_if_gone(error: CheckpointError, file: str, flag: str = "--meta") -> CheckpointError:
    """The same error, or one that names the newest where the checkpoint of `file` is not there."""
    folder, name = os.path.split(file)
    named = layout.split_name(name) or layout.split_name(name + layout.META_SUFFIX)
    steps = usable_steps(folder) if named else []
    if not named or not steps or named[0] in steps:
        return error
    newest = layout.checkpoint_name(steps[-1]) + layout.META_SUFFIX
    return CheckpointError(
        f"{file} is not there, or was deleted while it was read, as those that train do with older "
        f"checkpoints; the newest is {newest} ({flag}={folder or '.'} always reads the newest)"
    )


# What a path stands for.


def find_variables(path: str, flag: str = "--ckpt") -> str:
    """The prefix of the checkpoint that `path` stands for: of a folder, the newest in it.

    CheckpointError, which names the `flag` that gave it, where there is none, or a folder does not
    say which of several is the newest.
    """
    prefix = layout.prefix_of(path)
    place, base = os.path.split(prefix)
    parts = file_io.names_in(place) if file_io.is_folder(place or ".") else []
    # A base may be empty, as that of `model/.index`; of `model/` it is the folder that is meant.
    if (base or path != prefix) and base + layout.INDEX_SUFFIX in parts:
        return prefix
    if file_io.is_folder(path):
        return _newest_in(path, flag)
    if base and any(name == base or layout.prefix_of(name) == base for name in parts):
        return prefix
    near = beside(prefix, (layout.INDEX_SUFFIX,))
    raise CheckpointError(f"{flag}={path}: there is no {prefix}{layout.INDEX_SUFFIX}{near}")


def _newest_in(path: str, flag: str) -> str:
    names = own_names(path)
    if any(name in names for name in layout.SAVED_MODEL_FILES):
        return os.path.join(path, layout.SAVED_MODEL_VARIABLES)
    if steps := usable_steps(path):
        return layout.checkpoint_prefix(path, steps[-1])
    found = newest_of(path, [layout.prefix_of(n) for n in names if n.endswith(layout.INDEX_SUFFIX)])
    if len(found) == 1:
        return os.path.join(path, found[0])
    what = f"several checkpoints; name one: {first_few(found, _MOST_NAMED)}"
    raise CheckpointError(f"{flag}={path}: it holds {what if found else 'no checkpoint'}")


def graph_path(prefix: str) -> str | None:
    """The file of a checkpoint's graph: its `.meta`, or that of the SavedModel that it is of."""
    paths = [prefix + layout.META_SUFFIX]
    above = prefix.removesuffix(layout.SAVED_MODEL_VARIABLES)
    if above != prefix:
        paths += [os.path.join(above, name) for name in layout.SAVED_MODEL_FILES]
    return next((path for path in paths if file_io.exists(path)), None)


def beside(path: str, suffixes: Sequence[str]) -> str:
    """The end of an error line over a missing path: what its folder has of these suffixes."""
    place, name = os.path.split(path.rstrip("/"))
    if not file_io.is_folder(place or "."):
        return f": there is no folder {place}"
    names = file_io.names_in(place)
    files = [other for other in names if other.endswith(tuple(suffixes))]
    near = sorted(files, key=lambda other: -difflib.SequenceMatcher(None, other, name).ratio())
    if not name.endswith(tuple(suffixes)):  # It may have been a folder.
        folders = [other for other in names if file_io.is_folder(os.path.join(place, other))]
        near += nearest_names(name, folders)
    return f"; beside it there is {first_few(near, _MOST_NAMED)}" if near else ""


# Deleting; whatever the file system refuses is raised as OSError.


def delete_checkpoint(folder: str, step: int) -> None:
    """Deletes a step's files, in an order that never leaves a part that looks whole.

    The manifest first becomes `.manifest.tmp`, which makes leftovers of the rest, and goes last.
    """
    suffixes = files_by_step(folder).get(step, set())
    prefix = layout.checkpoint_prefix(folder, step)
    if layout.MANIFEST_SUFFIX in suffixes:
        file_io.rename(prefix + layout.MANIFEST_SUFFIX, prefix + layout.PENDING_SUFFIX)
        file_io.flush(folder)
    for suffix in suffixes - _OURS:
        file_io.remove(prefix + suffix)
    if suffixes & _OURS:
        file_io.remove(prefix + layout.PENDING_SUFFIX)


def make_way(folder: str, step: int) -> list[str]:
    """Frees the names of a step that is about to be saved; returns the new names of what stays.

    What is ours was stepped over as damaged, or left by a save that failed, and is deleted. What
    is not, such as a stock Saver's checkpoint, gets another name.
    """
    suffixes = files_by_step(folder).get(step, set())
    if suffixes & _OURS:
        delete_checkpoint(folder, step)
        return []
    prefix = layout.checkpoint_prefix(folder, step)
    return [file_io.set_aside(prefix + suffix) for suffix in sorted(suffixes)]


def delete_leftovers(folder: str) -> list[int]:
    """Clears what saves and deletions that were cut short have left; returns their steps."""
    found = files_by_step(folder).items()
    leftover = [step for step, suffixes in found if layout.is_leftover(suffixes)]
    for step in leftover:
        delete_checkpoint(folder, step)
    for name in layout.SIDE_FILES:
        file_io.remove_leftover(os.path.join(folder, name))
    return leftover


# The state file. Format: the text of `tensorflow/python/training/checkpoint_state.proto`.

_STATE_LINE = re.compile(r'\s*(\w+)\s*:\s*(?:"((?:[^"\\]|\\.)*)"|[-+.\w]+)\s*|\s*')


def write_state(folder: str, names: Sequence[str]) -> bool:
    """Writes the state file if it differs, the newest name last; returns whether it did."""
    escaped = [text_encoding.CEscape(name.encode(), as_utf8=True) for name in names]
    lines = [f'model_checkpoint_path: "{escaped[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in escaped]
    content = ("\n".join(lines) + "\n").encode()
    path = os.path.join(folder, layout.STATE_FILE)
    if file_io.content_of(path) == content:
        return False
    file_io.replace_file(path, content)
    return True


def read_state(path: str) -> str:
    """The path of the newest checkpoint in a state file; CheckpointError where there is none."""
    newest = ""
    try:
        for line in file_io.read_bounded(path, _MAX_STATE_BYTES).decode().split("\n"):
            found = _STATE_LINE.fullmatch(line)
            if found is None:
                raise ValueError(f"it has no field in {line[:80]!r}")
            if found[1] == "model_checkpoint_path":
                newest = text_encoding.CUnescape(found[2] or "").decode()
    except ValueError as error:
        raise CheckpointError(f"it is damaged: {error}") from error
    if not newest:
        raise CheckpointError("it is damaged: it names no newest checkpoint")
    return newest


def named_checkpoint(path: str) -> str | None:
    """Its base name, as the folder is often one of another machine; None where it has none."""
    try:
        return ntpath.basename(read_state(path))
    except CheckpointError:
        return None


# Which checkpoints stay.


class Retention(NamedTuple):
    """Which checkpoints stay.

    Another rule is a field here, a line of `steps_to_delete`, and one of `by_manifest` where it
    reads manifests; a flag in training/config.py, and an argument in training/resume.py.
    """

    max_to_keep: int  # The newest that stay, at least 1; 0 keeps all.
    every_n_hours: float = 0.0  # Beside them, the first of each such span; 0 keeps none.
    keep_best: bool = False  # Beside them, the one with the best test accuracy stays.
    damaged: frozenset[int] = frozenset()  # Not kept as the best, whatever their manifests say.


class Saved(NamedTuple):
    """What decides about a checkpoint: its step, when it was saved, and how good it is."""

    step: int
    saved_at: float = -math.inf  # Seconds since 1970; as the oldest where that is not known.
    test_accuracy: float | None = None  # In [0, 1]; None where it was not measured.


def best_first(saved: Iterable[Saved]) -> list[Saved]:
    """Those that have a test accuracy, the best first, the earliest of equals first."""
    measured = [(-s.test_accuracy, s.step, s) for s in saved if s.test_accuracy is not None]
    return [s for _, _, s in sorted(measured)]


def steps_to_delete(saved: Sequence[Saved], retention: Retention) -> list[int]:
    """The steps that go of a folder's committed checkpoints, both by rising step."""
    if retention.max_to_keep == 0:
        return []
    older = saved[: -retention.max_to_keep]
    kept = _first_of_each_span(older, retention.every_n_hours) if retention.every_n_hours else set()
    if retention.keep_best:
        ranked = best_first(s for s in saved if s.step not in retention.damaged)
        kept.update(best.step for best in ranked[:1])
    return [checkpoint.step for checkpoint in older if checkpoint.step not in kept]


def _first_of_each_span(saved: Sequence[Saved], hours: float) -> set[int]:
    last_kept, kept = None, set()
    for checkpoint in saved:
        elapsed = math.inf if last_kept is None else checkpoint.saved_at - last_kept
        # One before the last was saved under another clock: neither span tells of the other.
        is_earlier = -math.inf < elapsed < 0
        if elapsed >= hours * _SECONDS_PER_HOUR or is_earlier:
            last_kept = checkpoint.saved_at
            kept.add(checkpoint.step)
    return kept


def _saved(folder: str, step: int) -> Saved:
    try:
        found = layout.read_manifest(folder, step)
    except CheckpointError:
        found = None
    return Saved(step, found.saved_at, found.test_accuracy) if found else Saved(step)


def after_save(folder: str, newest: int, retention: Retention) -> bool:
    """Writes the state file, then lets the oldest checkpoints go; returns whether it has changed.

    What is later than `newest` was stepped over as damaged: it neither takes the place of a good
    one nor goes before it is written again. What another process reads goes with a later save.
    """
    steps = [step for step in committed_steps(folder) if step <= newest]
    # Where the order alone decides, no manifest has to be read.
    by_manifest = retention.every_n_hours or retention.keep_best
    saved = [_saved(folder, step) if by_manifest else Saved(step) for step in steps]
    doomed = steps_to_delete(saved, retention)
    kept = [layout.checkpoint_name(step) for step in steps if step not in doomed]
    rewritten = bool(kept) and write_state(folder, kept)
    for step in doomed:
        if not lock.is_held(layout.checkpoint_prefix(folder, step)):
            delete_checkpoint(folder, step)
    return rewritten


def at_start(folder: str, newest: int | None, retention: Retention) -> Retention:
    """Puts right what a run that was cut short, or damage, has left; returns what is to stay.

    `newest` is the step that was restored, if any. A best that is damaged is not kept as such.
    """
    for step in delete_leftovers(folder):
        logging.info("cleared what was left of an interrupted save of step %d", step)
    if newest is None:
        return retention
    if retention.keep_best:
        steps = [step for step in committed_steps(folder) if step <= newest]
        _, damaged = _best(folder, steps, "not kept as the best: %s")
        retention = retention._replace(damaged=frozenset(damaged))
    if after_save(folder, newest, retention):
        logging.info("rewrote the state file of %s, which did not name what is there", folder)
    return retention


def best_so_far(folder: str, newest: int, retention: Retention) -> Saved | None:
    """The best of the steps up to `newest` that may be kept as such; None for none measured."""
    steps = {step for step in committed_steps(folder) if step <= newest} - retention.damaged
    return next(iter(best_first(_saved(folder, step) for step in steps)), None)


def best_checkpoint(folder: str) -> str:
    """The prefix of the checkpoint with the best test accuracy, the earliest of equals.

    What is damaged is stepped over, with a line each; CheckpointError where none is left.
    """
    best, damaged = _best(folder, committed_steps(folder), "stepping over the best: %s")
    if best is not None:
        return layout.checkpoint_prefix(folder, best)
    if damaged:
        raise CheckpointError(
            f"{folder}: each of the {len(damaged)} checkpoints that say their test accuracy is "
            "damaged"
        )
    raise CheckpointError(
        f"{folder} has no checkpoint that says its test accuracy, as those of a training with "
        "--keep_best do"
    )


def _best(folder: str, steps: Iterable[int], warning: str) -> tuple[int | None, list[int]]:
    """The best undamaged one of these steps, and those that would be better if they were whole."""
    damaged: list[int] = []
    for found in best_first(_saved(folder, step) for step in steps):
        try:
            layout.verify_checkpoint(layout.checkpoint_prefix(folder, found.step))
        except CheckpointError as error:
            logging.warning(warning, error)
            damaged.append(found.step)
        else:
            return found.step, damaged
    return None, damaged
