"""One checkpoint, looked at as a whole: its manifest, its values, its graph.

Also whether the file `checkpoint` of its folder says what is there.

Every value is read, by which TensorFlow compares it with its checksum. Nothing of the graph is run.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints import manifest, naming
from checkpoints.file_io import read_bounded
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, first_few
from metagraph.graph import sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import MetaGraphFile, node_of, variable_definitions
from metagraph.opening import open_model
from metagraph.safety import TimeLimit, offenders
from metagraph.variables import RESTORE_OPS, graph_variables, saver_keys, unavailable
from tools.folder_entries import EMPTY_NAME, Entry, Listing, in_order, newest_of

STEP_KEY = "global_step"
NO_MANIFEST = "no manifest, as this project writes it: only TensorFlow's own checksums tell"
_READING, _IMPORT = "reading the graph", "the import of the graph"
_LOCALS = "local_variables"
# What a saver consists of; loading restores by operations of its own, and runs none of these.
_OF_SAVERS = RESTORE_OPS | {"MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"}
_MAX_TENSORS_NAMED, _MAX_NAMED = 4, 10
_MAX_BYTES = 1 << 20  # Of a state file.


@dataclass
class Findings:
    """What is wrong, and remarks on what is no damage; a line each."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Takes over what another has."""
        self.problems += other.problems
        self.remarks += other.remarks


@dataclass(frozen=True)
class Verdict:
    """What is known of one checkpoint once all of it has been read.

    Attributes:
      entry: where it is.
      findings: no problems for one that is whole.
      tensors: how many it holds; None where that cannot be read.
      value_bytes: what they take in memory; None likewise.
    """

    entry: Entry
    findings: Findings
    tensors: int | None
    value_bytes: int | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.findings.problems


class Values(NamedTuple):
    """What was read.

    Attributes:
      tensors: how many.
      value_bytes: what they take in memory, all together; strings count for nothing.
      problems: a line for all that are damaged, of many the first few.
      unread: the names of those that no reader gives, such as the state of an iterator.
      step: the value of the variable `global_step`; None where there is no such number.
    """

    tensors: int
    value_bytes: int
    problems: list[str]
    unread: list[str]
    step: int | None


def read_all(prefix: str) -> Values:
    """Reads the tensors one at a time: no more than the largest is in memory.

    Raises:
      CheckpointError: a file is missing, or so damaged that no tensor can be read.
    """
    reader = CheckpointReader(prefix)
    keys = sorted(reader.shapes)
    unread = [key for key in keys if reader.dtypes[key] == tf.variant]
    readable = [key for key in keys if reader.dtypes[key] != tf.variant]
    reader.check_sizes(readable)
    damaged, step = [], None
    for key in readable:
        try:
            value = reader.read(key)
        except CheckpointError as error:
            damaged.append(f"{key}: {error}")
            continue
        if key == STEP_KEY and value.dtype.kind in "iu" and value.size == 1:
            step = int(value.item())
    size = sum(math.prod(reader.shapes[key]) * reader.dtypes[key].size for key in readable)
    named = first_few(damaged, _MAX_TENSORS_NAMED, "; ")
    line = f"{len(damaged)} of its {len(readable)} tensors cannot be read: {named}"
    return Values(len(keys), size, [line] if damaged else [], unread, step)


class GraphChecks:
    """Looks into the graphs of checkpoints; a graph that many have is imported once."""

    def __init__(self, max_bytes: int, time_limit: TimeLimit) -> None:
        """Prepares to read files of at most `max_bytes`."""
        self._max_bytes = max_bytes
        self._time_limit = time_limit
        self._imported: dict[str, Findings] = {}

    def check(self, entry: Entry) -> Findings:
        """What there is to say of a checkpoint's graph, and of the variables that it has."""
        if entry.graph is None:
            return Findings(remarks=["it has no .meta: only its values could be looked at"])
        found = Findings()
        try:
            with self._time_limit.over(_READING):
                meta = open_model(entry.graph, self._max_bytes)
                meta = replace(meta, prefix=entry.prefix)
            found.add(self._import(meta))
            if not found.problems:
                found.add(_variables(meta, entry))
        except CheckpointError as error:
            found.problems.append(str(error))
        return found

    def _import(self, meta: MetaGraphFile) -> Findings:
        """Imports a graph, all of it, unless an equal one has been."""
        digest = hashlib.sha256(meta.proto.SerializeToString(deterministic=True)).hexdigest()
        if digest not in self._imported:
            graph_def = sub_graph(meta, [f"{name}:0" for name in meta.nodes]).graph_def
            found = Findings(remarks=[*_refused(graph_def)])
            try:
                with self._time_limit.over(_IMPORT):
                    import_disarmed(meta, graph_def)
            except CheckpointError as error:
                found.problems.append(str(error).replace(meta.path, "its graph"))
            self._imported[digest] = found
        return self._imported[digest]


def _refused(graph_def: GraphDef) -> Iterator[str]:
    """What of a graph is run only where it is trusted."""
    found = [offender for offender in offenders(graph_def) if offender.node.op not in _OF_SAVERS]
    ops = sorted({offender.node.op for offender in found})
    if ops:
        yield (
            f"what needs the {len(found)} nodes of the operations {first_few(ops, _MAX_NAMED)} is "
            "run with --trust_graph only"
        )


def _variables(meta: MetaGraphFile, entry: Entry) -> Findings:
    """Compares the graph's variables with what the checkpoint has; no value is read."""
    variables = graph_variables(meta)
    if not entry.has_values and not variables:
        return Findings(remarks=["its graph has no variables"])
    saved = saver_keys(meta).keys()
    if saved:
        left_out = {variable.name for variable in variables} - saved
    else:  # A saver leaves these out unless it is told to save them.
        left_out = {name for name, _ in variable_definitions(meta, _LOCALS)}
        left_out |= {node_of(name) for name in meta.collection(_LOCALS).node_list.value}
    found = Findings(problems=unavailable(meta, [v for v in variables if v.name not in left_out]))
    others = [variable for variable in variables if variable.name in left_out]
    missing = unavailable(meta, others) if others else []
    if missing:
        found.remarks.append(
            f"no value is stored of {len(missing)} variables that its saver does not save: "
            + first_few(missing, _MAX_NAMED, "; ")
        )
    return found


def verify_entry(entry: Entry, graphs: GraphChecks) -> Verdict:
    """Reads all there is of a checkpoint; whatever is wrong is in what is returned."""
    found = _of_manifest(entry)
    values = _of_values(entry, found)
    if entry.graph is not None or not entry.committed:  # Else the manifest says what is missing.
        found.add(graphs.check(entry))
    found.problems = list(dict.fromkeys(found.problems))
    return Verdict(entry, found, values and values.tensors, values and values.value_bytes)


def _of_manifest(entry: Entry) -> Findings:
    """Compares each file with what the manifest says, where there is one."""
    if entry.step is None or not entry.committed:
        return Findings(remarks=[NO_MANIFEST])
    path = os.path.dirname(entry.prefix)
    problems = []
    try:
        found = manifest.read(path, entry.step)
    except CheckpointError as error:
        return Findings([str(error)])
    if found is None:
        return Findings(["its manifest was taken away"])
    for suffix in naming.CONTENT_SUFFIXES:
        try:
            manifest.verify_files(path, found, [suffix])
        except CheckpointError as error:
            problems.append(str(error))
    return Findings(problems)


def _of_values(entry: Entry, found: Findings) -> Values | None:
    """Reads the values and adds to `found` what is wrong with them."""
    if not entry.has_values and entry.graph is not None:
        return None  # A graph may have no variables; if it has, they are found missing.
    try:
        values = read_all(entry.prefix)
    except CheckpointError as error:
        found.problems.append(str(error))
        return None
    found.problems += values.problems
    if values.unread:
        found.remarks.append(
            f"not read, as no reader can: {first_few(values.unread, _MAX_TENSORS_NAMED)}"
        )
    if entry.step is not None and values.step not in (None, entry.step):
        line = f"it is of step {values.step}, whatever its name says"
        (found.problems if entry.committed else found.remarks).append(line)
    return values


class State(NamedTuple):
    """The newest checkpoint and all of them, by names or paths, as a state file has them."""

    newest: str
    kept: tuple[str, ...]


def read_state(path: str) -> State | None:
    """Reads a folder's state file; None where it has none.

    Format: the text of `tensorflow/python/training/checkpoint_state.proto`.

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
    """Compares the state file of a folder with the verdicts on its checkpoints."""
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
