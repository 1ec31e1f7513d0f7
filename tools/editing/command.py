"""One edit from start to end: what tools.edit does once its flags are read."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.loading.meta_graph_file import MetaGraphFile, read_meta_graph
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.slots import slot_names
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import find_variables, prefix_of
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.newest import Hold, read_newest, say_if_gone
from prediction import plan
from prediction.feeds import Feed, read_feeds
from prediction.inputs import MAX_BYTES
from prediction.model import Model, read_model
from tools.common.errors import ToolError
from tools.editing.check import Answer, Question, check_same
from tools.editing.contents import Contents, Tensor, plan_tensors, read_contents
from tools.editing.graph import EditedGraph, edit_graph
from tools.editing.record import make_record
from tools.editing.rules import NewNames, Rename, select
from tools.editing.target import Target
from tools.editing.writing import write_tensors

_READING = "reading the graph"


@dataclass(frozen=True)
class EditConfig:
    """What is asked for.

    Attributes:
      output: the prefix of the new checkpoint.
      checkpoint: what `find_variables` takes; None for that of the graph.
      meta: what `open_model` takes, where the graph goes along; None where it does not.
      overwrite: whether a checkpoint at `output` may be replaced.
      only: patterns of the keys that are kept; none for all.
      drop: patterns of keys that are not.
      without_slots: whether those of an optimizer are not.
      renames: in the order in which they are applied.
      cast: the name of the dtype that floating numbers get; None where they keep theirs.
      allow_overflow: whether numbers that are too large for it become infinities.
      fetch: the tensors, or keys of the signature, that the graph has to predict; none for its own.
      asset: files for lookup tables, by name.
      tolerance: how far numbers may be apart after a cast; None for 16 epsilons of the dtype.
      feed: values for the check, as `prediction.feeds.read_feeds` takes them.
      trust_graph: run also operations that may do more than compute.
      time_limit: seconds that each of these may take: reading the graph, its import, a run.
      end_after: as of a `TimeLimit`.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    output: str
    checkpoint: str | None = None
    meta: str | None = None
    overwrite: bool = False
    only: Sequence[str] = ()
    drop: Sequence[str] = ()
    without_slots: bool = False
    renames: Sequence[Rename] = ()
    cast: str | None = None
    allow_overflow: bool = False
    fetch: Sequence[str] = ()
    feed: Sequence[str] = ()
    asset: Mapping[str, str] = field(default_factory=dict)
    tolerance: float | None = None
    trust_graph: bool = False
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None
    max_meta_bytes: int = DEFAULT_MAX_BYTES

    @property
    def limit(self) -> TimeLimit:
        """The time limit with what ends the process."""
        return TimeLimit(self.time_limit, self.end_after)


def edit(config: EditConfig) -> Mapping[str, Any]:
    """Writes the new checkpoint and returns what `tools.editing.record` describes.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user; nothing is
        written.
    """
    return read_newest([config.meta, config.checkpoint], functools.partial(_edit_newest, config))


def _edit_newest(config: EditConfig, hold: Hold) -> Mapping[str, Any]:
    prefix = None if config.checkpoint is None else find_variables(config.checkpoint)
    file = None if config.meta is None else find_model(config.meta, warn=prefix is None)
    for path in (prefix, file):
        if path is not None:
            hold(prefix_of(path))
    meta = None if file is None else _open_graph(config, file, prefix)
    prefix = meta.prefix if meta is not None else prefix or ""
    sources = [prefix] if meta is None else [prefix, meta.path.removesuffix(META_SUFFIX)]
    target = Target(config.output, sources, config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        contents = read_contents(prefix)
        return _edit(config, meta, contents, target)
    except CheckpointError as error:
        flag = "--meta" if config.checkpoint is None else "--ckpt"
        raise say_if_gone(error, prefix, flag) from error


def _open_graph(config: EditConfig, path: str, checkpoint: str | None) -> MetaGraphFile:
    """The graph that goes along, and where its variables are."""
    with config.limit.over(_READING):
        meta = open_model(path, config.max_meta_bytes, checkpoint)
    if not meta.path.endswith(META_SUFFIX):
        raise ToolError(
            f"{meta.path} is no .meta file, the one kind of graph that can be edited; --ckpt alone "
            "edits the variables of a SavedModel"
        )
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def _edit(
    config: EditConfig, meta: MetaGraphFile | None, contents: Contents, target: Target
) -> Mapping[str, Any]:
    """Everything but the looking for the files."""
    slots = slot_names(contents.keys, meta) if config.without_slots else frozenset[str]()
    kept = select(contents.keys, config.only, config.drop, slots)
    new_names = NewNames(config.renames)
    keys = new_names.of(kept)
    cast = None if config.cast is None else tf.as_dtype(config.cast)
    tensors = plan_tensors(contents, keys, cast)
    if meta is None:
        new_names.check_used()
        files = _write(config, contents, tensors, target)
        return make_record(contents, tensors, target.final, files)
    with config.limit.over(_READING):
        question = _question(config, meta, read_model(meta))
        graph = edit_graph(meta, contents.keys, tensors, new_names, question.outputs)
    new_names.check_used()
    answer: list[Answer] = []

    def check(path: str) -> None:
        new = read_meta_graph(path, config.max_meta_bytes)
        answer.append(check_same(meta, new, graph.names, question, config.cast))

    files = _write(config, contents, tensors, target, graph, check)
    return make_record(
        contents, tensors, target.final, files, (meta, graph, question.outputs, answer[0])
    )


def _write(
    config: EditConfig,
    contents: Contents,
    tensors: Sequence[Tensor],
    target: Target,
    graph: EditedGraph | None = None,
    check: Callable[[str], None] | None = None,
) -> list[str]:
    """Writes all files aside, has them checked and moves them into place; returns their names."""
    with target:
        write_tensors(contents.reader, tensors, target.prefix, config.allow_overflow)
        if graph is not None and check is not None:
            check(target.write_graph(graph.proto.SerializeToString(deterministic=True)))
        return target.commit()


def _question(config: EditConfig, meta: MetaGraphFile, model: Model) -> Question:
    """What the graph predicts, and from what."""
    outputs = [*plan.choose_fetches(meta, model, config.fetch)]
    if not config.fetch:
        outputs = [*dict.fromkeys([*outputs, *model.outputs.values()])]
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(config.feed, MAX_BYTES):
        feeds[meta.tensor_name(feed.name, model.feed_keys)] = feed
    return Question(
        outputs=outputs,
        inputs=[*feeds, *plan.unfed(meta, outputs, feeds)],
        feeds=feeds,
        assets=config.asset,
        trust_graph=config.trust_graph,
        time_limit=config.limit,
        tolerance=config.tolerance,
    )
