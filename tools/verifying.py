"""What tools.verify does once its flags are read, and what it prints.

Every value of a checkpoint is read, and so compared with its checksum; nothing of its graph is run.
A folder may be put right around its checkpoints; they are never touched.
"""

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import NamedTuple

import file_io
from checkpoints import folder, layout, lock
from checkpoints.bundle import VARIANT
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, ToolError, first_few, reason
from metagraph.graph import sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import MetaGraphFile, node_of, variable_definitions
from metagraph.opening import GRAPH_SUFFIXES, open_model
from metagraph.variables import graph_variables, saver_keys, unavailable
from tools.command import Record, format_bytes
from tools.inspecting import EMPTY_NAME, Entry, is_folder, list_folder, named_entry
from tools.verify import VerifyConfig

_NO_MANIFEST = "no manifest, as this project writes it: only TensorFlow's own checksums tell"
_OTHERWISE = "verify one checkpoint alone, by its prefix"
_LOCALS = "local_variables"
_MAX_TENSORS_NAMED, _MAX_NAMED = 4, 10


def verify(config: VerifyConfig) -> Record:
    """Verifies, and repairs where that is asked for; tells of it as `docs/json.md` has it.

    A repair that is cut short is begun again by the next: each of its steps is done or not.
    """
    place, name = os.path.split(config.path)
    path = place or "." if name in layout.SAVED_MODEL_FILES else config.path
    check = functools.partial(_verify_entry, config, {})
    if not is_folder(path):
        if config.repair:
            raise ToolError(f"--repair is of a folder, not of {path} alone: name its folder")
        if path.endswith(GRAPH_SUFFIXES):
            raise ToolError(f"{path} is no checkpoint: a graph that stands alone has no variables")
        entry = named_entry(folder.find_variables(path))
        return _record(os.path.dirname(entry.prefix), {entry: check(entry)}, None)
    # A stranger's folder is left without the lock's file.
    is_trained_in = file_io.exists(os.path.join(path, lock.LOCK_FILE))
    locked = lock.FolderLock(path, _OTHERWISE, keeps_file=is_trained_in)
    with locked if config.repair else nullcontext():
        if not config.repair:
            lock.check_unused(path, _OTHERWISE)
        found = {entry: check(entry) for entry in list_folder(path)}
        done = _repair(path, found) if config.repair else []
        leftovers = _leftovers(path)
        record = _record(path, found, _check_state(path, found), leftovers, done)
    if not (config.repair or record["ok"]):
        lock.check_unused(path, _OTHERWISE)  # A run that has begun since changes the folder.
    if not (found or leftovers or done):
        raise ToolError(f"{path} holds no checkpoint")
    return record


def _record(
    path: str,
    found: Mapping[Entry, Record],
    state: Record | None,
    leftovers: Sequence[Sequence[str]] = (),
    repaired: Sequence[str] = (),
) -> Record:
    """What there is to say of a folder, given what was found of its checkpoints."""
    history = _check_history(path, found)
    is_tidy = not leftovers and history["ok"] and (state is None or state["ok"])
    return {
        "folder": path,
        "ok": is_tidy and bool(found) and all(checkpoint["ok"] for checkpoint in found.values()),
        "repaired": [*repaired],
        "checkpoints": [*found.values()],
        "history": history,
        "state": state,
        "leftovers": [{"files": [*names]} for names in leftovers],
    }


def _leftovers(path: str) -> list[list[str]]:
    """The files of each save and deletion, or write of another file, that was cut short."""
    found = [
        sorted(layout.checkpoint_name(step) + suffix for suffix in suffixes)
        for step, suffixes in folder.files_by_step(path).items()
        if layout.is_leftover(suffixes)
    ]
    written = [name + file_io.TEMPORARY_SUFFIX for name in layout.SIDE_FILES]
    return found + [[name] for name in written if file_io.exists(os.path.join(path, name))]


def _repair(path: str, found: Mapping[Entry, Record]) -> list[str]:
    """Puts right what is around checkpoints; returns what was done, a line each."""
    done: list[str] = []
    try:
        leftovers = _leftovers(path)
        folder.delete_leftovers(path)  # First, as that frees space.
        for names in leftovers:
            told = first_few(names, _MAX_NAMED)
            done.append(f"cleared {told}, left by a save or a deletion that was cut short")
        state = _check_state(path, found)
        if state["exists"] and state["ok"]:
            return done
        to_name = _to_name(found)
        newest = folder.newest_of(path, [entry.name for entry in to_name])
        if len(newest) != 1:
            any_of = f"nothing tells which is the newest, {first_few(newest, _MAX_NAMED)}"
            why = any_of if newest else "none is whole to name"
            return [*done, f"left {state['path']} as it is: {why}"]
        named = [entry.state_name for entry in to_name]
        folder.write_state(path, named)
        told = first_few(named, _MAX_NAMED)
        return [*done, f"wrote {state['path']}: it names {told}; the newest is {named[-1]}"]
    except OSError as error:
        before = f"; done until then: {'; '.join(done)}" if done else ""
        raise ToolError(f"{path} cannot be repaired: {reason(error)}{before}") from error


# One checkpoint.


class Findings(NamedTuple):
    """What is wrong, and remarks on what is no damage; a line each."""

    problems: list[str]
    remarks: list[str]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Adds the error over a damaged or missing file to the problems, and goes on after it."""
        try:
            yield
        except CheckpointError as error:
            self.problems.append(str(error))

    def record(self) -> Record:
        """The same as JSON."""
        return {"ok": not self.problems, **self._asdict()}


def _verify_entry(config: VerifyConfig, imported: dict[str, str | None], entry: Entry) -> Record:
    """Reads all there is of a checkpoint; whatever is wrong is in what is returned, JSON values.

    Its `tensors` are how many there are, its `bytes` their size in memory without texts; both are
    null where they cannot be read.
    """
    found = Findings([], [])
    _compare_files(entry.prefix, found)
    tensors = size = None
    # Of what has other files, its graph says whether any is missing.
    if entry.has_values or entry.graph is None or not entry.files:
        with found.noted():
            tensors, size = _read_all(entry, found)
    if entry.graph is not None or not entry.committed:  # Else the manifest says what is missing.
        with found.noted():
            _check_graph(entry, config, imported, found)
    return {
        "name": entry.name,
        "prefix": entry.prefix,
        "step": entry.step,
        "ok": not found.problems,
        "manifest": entry.committed,
        "graph": entry.graph,
        "tensors": tensors,
        "bytes": size,
        "problems": list(dict.fromkeys(found.problems)),
        "remarks": found.remarks,
    }


def _compare_files(prefix: str, found: Findings) -> None:
    """Compares each file with what the manifest says, where there is one."""
    with found.noted():
        said = layout.manifest_at(prefix)
        if said is None:
            found.remarks.append(_NO_MANIFEST)
            return
        for suffix in layout.CONTENT_SUFFIXES:
            with found.noted():
                layout.verify_files(os.path.dirname(prefix), said, [suffix])


def _read_all(entry: Entry, found: Findings) -> tuple[int, int]:
    """Reads the tensors one at a time, and adds to `found` what is wrong; their count and bytes.

    Raises CheckpointError where a file is missing, or so damaged that no tensor can be read.
    """
    reader = CheckpointReader(entry.prefix)
    readable = [key for key, dtype in sorted(reader.dtypes.items()) if dtype != VARIANT]
    unread = sorted(reader.dtypes.keys() - {*readable})  # Such as the state of an iterator.
    reader.check_sizes(readable)
    damaged, step = [], entry.step
    for key in readable:
        try:
            value = reader.read(key)
        except CheckpointError as error:
            damaged.append(f"{key}: {str(error).replace(f'{key}: ', '', 1)}")
            continue
        if key == "global_step" and value.dtype.kind in "iu" and value.size == 1:
            step = int(value.item())
    if damaged:
        named = first_few(damaged, _MAX_TENSORS_NAMED, "; ")
        found.problems.append(
            f"{len(damaged)} of its {len(readable)} tensors cannot be read: {named}"
        )
    if unread:
        found.remarks.append(f"not read, as no reader can: {first_few(unread, _MAX_TENSORS_NAMED)}")
    if entry.step not in (None, step):
        line = f"it is of step {step}, whatever its name says"
        (found.problems if entry.committed else found.remarks).append(line)
    sizes = [math.prod(reader.shapes[key]) * reader.dtypes[key].size for key in readable]
    return len(reader.shapes), sum(sizes)


def _check_graph(
    entry: Entry, config: VerifyConfig, imported: dict[str, str | None], found: Findings
) -> None:
    """Adds what there is to say of a checkpoint's graph, and of the variables that it has."""
    if entry.graph is None:
        found.remarks.append("it has no .meta: only its values could be looked at")
        return
    with config.limit.over("reading the graph"):
        meta = replace(open_model(entry.graph, config.max_meta_bytes), prefix=entry.prefix)
    problem = _import_problem(meta, config, imported) if config.deep else None
    found.problems.extend(_unavailable(meta) if problem is None else [problem])


def _import_problem(
    meta: MetaGraphFile, config: VerifyConfig, imported: dict[str, str | None]
) -> str | None:
    """Why a graph cannot be imported, if so; kept by digest, as many checkpoints have the same."""
    digest = hashlib.sha256(meta.proto.SerializeToString(deterministic=True)).hexdigest()
    if digest not in imported:
        imported[digest] = None
        with config.limit.over("the import of the graph"):
            graph_def = sub_graph(meta, [f"{name}:0" for name in meta.nodes]).graph_def
            try:
                import_disarmed(meta, graph_def)
            except CheckpointError as error:
                imported[digest] = str(error).replace(meta.path, "its graph")
    return imported[digest]


def _unavailable(meta: MetaGraphFile) -> list[str]:
    """What the checkpoint lacks of the graph's variables; no value is read."""
    saved = saver_keys(meta).keys()
    left_out = {node_of(name) for name in meta.collection(_LOCALS).node_list.value}
    left_out |= {name for name, _ in variable_definitions(meta, _LOCALS)}
    wanted = [
        variable
        for variable in graph_variables(meta)
        # Without a saver, all but local variables, which one leaves out unless it is told of them.
        if (variable.name in saved if saved else variable.name not in left_out)
    ]
    return unavailable(meta, wanted) if wanted else []


# The chain of manifests.


def _check_history(path: str, found: Iterable[Entry]) -> Record:
    """Compares each manifest with what the one after it says of it: JSON values."""
    said = Findings([], [])
    for entry in found:
        with suppress(CheckpointError, OSError):  # Of a damaged one, which is told of already.
            this = layout.manifest_at(entry.prefix)
            before = this.previous if this else None
            if before is None:
                continue
            name = layout.checkpoint_name(before.step) + layout.MANIFEST_SUFFIX
            present = layout.previous_manifest(path, before.step)
            if present is None:
                said.remarks.append(f"cut before {entry.name}, which follows {name}: that is gone")
            elif present != before:
                said.problems.append(
                    f"{entry.name} follows a {name} with SHA-256 {before.sha256[:8]}..., and this "
                    f"one has {present.sha256[:8]}...: it was changed, or is of another history"
                )
    return said.record()


# The state file.


def _to_name(found: Mapping[Entry, Record]) -> list[Entry]:
    """The whole checkpoints, which a state file should name, the newest last.

    In a folder of ours, those called `my-model-<step>`; elsewhere all.
    """
    whole = [entry for entry, record in found.items() if record["ok"]]
    return [entry for entry in whole if entry.step is not None or not _is_ours(found)]


def _is_ours(found: Iterable[Entry]) -> bool:
    return any(entry.committed for entry in found)


def _check_state(path: str, found: Mapping[Entry, Record]) -> Record:
    """Compares the state file of a folder with what was found of its checkpoints: JSON values."""
    file = os.path.join(path, layout.STATE_FILE)
    exists = file_io.exists(file) and not file_io.is_folder(file)
    said, expected = Findings([], []), _to_name(found)
    lines = said.problems if _is_ours(found) and expected else said.remarks
    if not exists:
        lines.append("not there, so that tf.train.latest_checkpoint finds nothing")
        return {"path": file, "exists": exists, **said.record()}
    with said.noted():
        said_newest = folder.read_state(file)
        named = os.path.basename(said_newest) or EMPTY_NAME
        by_name = {entry.name: entry.state_name for entry in expected}
        newest = [by_name[name] for name in folder.newest_of(path, [*by_name])]
        # A trainer of ours names the newest that has a manifest.
        committed = [entry.state_name for entry in expected if entry.committed]
        if wrong := _misnamed(path, said_newest, found):
            said.problems.append(wrong)
        elif newest and named not in (*newest, *committed[-1:]):
            lines.append(f"its newest is {named}, that of the folder is {newest[0]}")
    return {"path": file, "exists": exists, **said.record()}


def _misnamed(path: str, name: str, found: Mapping[Entry, Record]) -> str | None:
    """What is wrong with the path of the newest in a state file, which may lead elsewhere."""
    is_whole = {entry.state_name: record["ok"] for entry, record in found.items()}
    place, base = os.path.split(os.path.join(os.path.abspath(path), name))
    if os.path.normpath(place) == os.path.abspath(path):
        is_there = (base or EMPTY_NAME) in is_whole
        if is_there and not is_whole[base or EMPTY_NAME]:
            return f"it names {name}: not whole"
    else:
        prefix = os.path.join(place, base)
        is_there = any(os.path.exists(prefix + suffix) for suffix in (layout.INDEX_SUFFIX, ""))
    return None if is_there else f"it names {name}: not there"


# What is printed.


def as_text(record: Record) -> str:
    """A line for each checkpoint, and one for each other thing there is to say."""
    lines = [*record["repaired"]]
    for checkpoint in record["checkpoints"]:
        count = checkpoint["tensors"] or 0
        tensors = f"{count} tensor{'' if count == 1 else 's'}"
        told = f" ({tensors}, {format_bytes(checkpoint['bytes'] or 0)})"
        lines += _verdict_lines(checkpoint["prefix"], checkpoint, told)
    history = record["history"]
    if history["problems"] or history["remarks"]:
        lines += _verdict_lines("the chain of manifests", history)
    state = record["state"]
    if state is not None and (state["exists"] or state["problems"]):
        lines += _verdict_lines(state["path"], state)
    elif state is not None:
        lines += [f"remark: {state['path']}: {remark}" for remark in state["remarks"]]
    for leftover in record["leftovers"]:
        names = first_few(leftover["files"], _MAX_NAMED)
        lines.append(f"wrong: {names}: left by a save or a deletion that was cut short")
    return "\n".join(lines)


def _verdict_lines(name: str, record: Record, told: str = "") -> Iterator[str]:
    """`name: ok`, or what is wrong; then remarks."""
    yield f"{name}: " + (f"ok{told}" if record["ok"] else f"wrong: {'; '.join(record['problems'])}")
    yield from (f"  remark: {remark}" for remark in record["remarks"])
