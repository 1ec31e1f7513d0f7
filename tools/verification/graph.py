"""Whether a checkpoint can be restored into its own graph: nothing of that graph is run."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.disarmed_graph import import_disarmed
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.model_files import open_model
from checkpoints.loading.op_check import offenders
from checkpoints.loading.saver_mapping import RESTORE_OPS, saver_keys
from checkpoints.loading.sub_graph import sub_graph
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_definitions import variable_definitions
from checkpoints.loading.variable_values import Variable, graph_variables, unavailable
from tools.common.folder_entries import Entry
from tools.verification.findings import Findings

_READING, _IMPORT = "reading the graph", "the import of the graph"
_LOCALS = "local_variables"
# What a saver consists of; loading restores by operations of its own, and runs none of these.
_OF_SAVERS = RESTORE_OPS | {"MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"}
_MAX_NAMED = 10


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
    else:
        left_out = set(_local_variables(meta))
    found = Findings(problems=unavailable(meta, [v for v in variables if v.name not in left_out]))
    missing = unavailable(meta, others) if (others := _only(variables, left_out)) else []
    if missing:
        found.remarks.append(
            f"no value is stored of {len(missing)} variables that its saver does not save: "
            + first_few(missing, _MAX_NAMED, "; ")
        )
    return found


def _only(variables: list[Variable], names: set[str]) -> list[Variable]:
    return [variable for variable in variables if variable.name in names]


def _local_variables(meta: MetaGraphFile) -> Iterator[str]:
    """Variables that a saver leaves out unless it is told to save them."""
    yield from (name for name, _ in variable_definitions(meta, _LOCALS))
    yield from (node_of(name) for name in meta.collection(_LOCALS).node_list.value)
