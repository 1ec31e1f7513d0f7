"""One prediction from start to end: what predict.py does once its flags are read."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints.best import best_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import (
    InferenceGraph,
    describe_tensors,
    load_inference_graph,
)
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.sub_graph import sub_graph
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.newest import say_if_gone
from data.options import RAMP
from prediction import checkpoint_state, listing, plan, report
from prediction.casting import Array, as_numpy_dtype
from prediction.classification import Classification
from prediction.collected import Kind, kind_of
from prediction.errors import PredictionError
from prediction.feeds import Feed, read_feeds
from prediction.inputs import MAX_BYTES
from prediction.model import Model, read_model
from prediction.output_file import check_output, write_outputs
from prediction.randomness import warn_if_random
from prediction.row_inputs import (
    RowInputs,
    files_by_tensor,
    open_demo,
    open_inputs,
    value_for,
)
from prediction.rows import ColumnRows, Rows
from prediction.runner import run_rows

BEST = "best"
MEGABYTE = 2**20
_READING = "reading the graph"

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PredictConfig:
    """What is asked for.

    Attributes:
      meta: what `open_model` takes: a `.meta` file, or a folder for its newest checkpoint, and so
        on.
      fetch: names of tensors, or keys of the signature; empty for the graph's own prediction.
      input: files and folders of rows, each `name=path`, or a path alone for the one input left.
      feed: as `prediction.feeds.read_feeds` takes them.
      asset: files for lookup tables, each `name=path`.
      checkpoint: what `find_variables` takes, for variables of another checkpoint than the graph's
        own; `BEST` for the one with the best test accuracy in the graph's folder; None for its own.
      signature: the name of the signature to use; None for `serving_default`, or the only one.
      list: only say what the graph holds.
      batch_size: rows a run, None for a fast one.
      format: of what is printed, `text` or `json`.
      output: a file to write, None for none.
      trust_graph: run also operations that may do more than compute.
      time_limit: seconds that each of these may take: reading the graph, its import, a run; 0 for
        no limit.
      end_after: as of a `TimeLimit`.
      max_input_mb: megabytes (2**20 bytes) that one file of input may unpack to.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    meta: str
    fetch: Sequence[str] = ()
    input: Sequence[str] = ()
    feed: Sequence[str] = ()
    asset: Sequence[str] = ()
    checkpoint: str | None = None
    signature: str | None = None
    list: bool = False
    batch_size: int | None = None
    format: str = "text"
    output: str | None = None
    trust_graph: bool = False
    time_limit: float = 60.0
    end_after: Callable[[float, str], None] | None = None
    max_input_mb: int = MAX_BYTES // MEGABYTE
    max_meta_bytes: int = DEFAULT_MAX_BYTES

    @property
    def limit(self) -> TimeLimit:
        """The time limit with what ends the process."""
        return TimeLimit(self.time_limit, self.end_after)


class Classified(NamedTuple):
    """What a classifier says of rows, and the rows.

    Attributes:
      meta: the file of the graph.
      checkpoint: the prefix of its variables; None where the graph has none.
      model: the graph's description.
      inputs: the rows.
      result: of each row.
    """

    meta: str
    checkpoint: str | None
    model: Model
    inputs: RowInputs
    result: Classification


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print.

    A folder as `meta` stands for its newest checkpoint, or for its best one. Where a trainer
    deletes that while it is being read, the one that is by then is read in its place.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    return _with_chosen(config, _predict_with)


def classify(config: PredictConfig) -> Classified:
    """Predicts as `predict` does, with a classifier, and returns what it says of each row.

    Of `config`, what is to be fetched, printed and written is left alone.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    return with_model(config, functools.partial(_classify, config))


def with_model(config: PredictConfig, work: Callable[[MetaGraphFile, Model], _Result]) -> _Result:
    """Opens the model that `config` names, as `predict` does, and does some work on it.

    Raises:
      CheckpointError: it cannot be opened; what `work` raises.
    """

    def on_files(chosen: PredictConfig) -> _Result:
        meta = _open(chosen)
        return work(meta, _read(chosen, meta))

    return _with_chosen(config, on_files)


def _with_chosen(config: PredictConfig, work: Callable[[PredictConfig], _Result]) -> _Result:
    """Does the work on the files that `config` stands for by then."""
    chosen = _chosen(config)
    while True:
        try:
            return _with_files(chosen, work)
        except CheckpointError as error:
            before, chosen = chosen, _chosen(config)
            if chosen == before:
                raise
            logging.warning("%s; reading %s", error, chosen.checkpoint or chosen.meta)


def _chosen(config: PredictConfig) -> PredictConfig:
    """The same with files in place of what stands for a folder's newest or best checkpoint.

    The best has its own graph where no other is named.
    """
    is_folder = tf.io.gfile.isdir(config.meta)
    if config.checkpoint == BEST:
        best = _best(config.meta if is_folder else os.path.dirname(config.meta) or ".")
        if is_folder:
            return dataclasses.replace(config, meta=best + META_SUFFIX, checkpoint=None)
        return dataclasses.replace(config, checkpoint=best)
    if is_folder:
        meta = find_model(config.meta, config.checkpoint is None)
        return dataclasses.replace(config, meta=meta)
    return config


def _best(folder: str) -> str:
    """The prefix of a folder's best checkpoint."""
    try:
        return best_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"--ckpt={BEST}: {error}; a checkpoint that is itself named {BEST} is --ckpt=./{BEST}"
        ) from error


def _with_files(config: PredictConfig, work: Callable[[PredictConfig], _Result]) -> _Result:
    """Does the work on one model."""
    try:
        return work(config)
    except CheckpointError as error:
        if config.checkpoint is not None:
            raise say_if_gone(error, config.checkpoint, "--ckpt") from error
        raise say_if_gone(error, config.meta) from error


def _predict_with(config: PredictConfig) -> str:
    meta = _open(config)
    if config.list:
        return _listing(config, meta)
    model = _read(config, meta)
    if config.output is not None:
        check_output(config.output, [*config.input, *config.feed])
    result, inputs = _run(config, meta, model)
    if config.output is not None:
        write_outputs(config.output, result.outputs, inputs.names)
    if config.format == "json":
        return report.as_json(result)
    _say_what_was_read(meta)
    return report.as_text(result)


def _classify(config: PredictConfig, meta: MetaGraphFile, model: Model) -> Classified:
    if model.classifier is None:
        raise PredictionError(
            f"{meta.path} does not say that it is a classifier: expected a signature with the "
            "results 'probabilities' [?, classes] and 'classes' [?]; predict.py --list shows what "
            "it has"
        )
    found, inputs = _run(dataclasses.replace(config, fetch=()), meta, model)
    if found.classification is None:
        raise PredictionError(
            f"{meta.path}: its {model.classifier.probabilities} and {model.classifier.classes} "
            "do not fit the rows, or each other"
        )
    return Classified(found.meta, found.checkpoint, model, inputs, found.classification)


def _open(config: PredictConfig) -> MetaGraphFile:
    with config.limit.over(_READING):
        meta = open_model(config.meta, config.max_meta_bytes, config.checkpoint)
    # The graph may come from another checkpoint than its variables.
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def _read(config: PredictConfig, meta: MetaGraphFile) -> Model:
    verify_checkpoint(meta.prefix, (DATA_SUFFIX, INDEX_SUFFIX))
    with config.limit.over(_READING):
        return read_model(meta, config.signature)


def _listing(config: PredictConfig, meta: MetaGraphFile) -> str:
    """What the graph holds, and whether its checkpoint has what the outputs need."""
    with config.limit.over("listing the graph"):
        content = listing.listing(meta, read_model(meta, config.signature))
    outputs = [record["name"] for record in content["outputs"] or content["candidates"]]
    state = checkpoint_state.checkpoint_state(meta, outputs)
    if config.format == "json":
        return listing.as_json(content | checkpoint_state.as_record(meta, state))
    _say_what_was_read(meta)
    return listing.as_text(content) + checkpoint_state.as_text(state)


def _say_what_was_read(meta: MetaGraphFile) -> None:
    """For text, whose lines on stdout are results alone; JSON has a place for it."""
    checkpoint = checkpoint_state.checkpoint_of(meta)
    variables = f", variables {checkpoint}" if checkpoint else ", which has no variables"
    logging.info("graph %s%s", meta.path, variables)


def _assets(texts: Sequence[str]) -> dict[str, str]:
    """The files of --asset by name."""
    assets: dict[str, str] = {}
    for name, _, path in (text.partition("=") for text in texts):
        if name in assets:
            raise PredictionError(f"--asset {name} is given twice: {assets[name]}, {path}")
        assets[name] = path
    return assets


def _run(
    config: PredictConfig, meta: MetaGraphFile, model: Model
) -> tuple[report.Report, RowInputs]:
    """The results, and the rows that they are for."""
    fetches = plan.choose_fetches(meta, model, config.fetch)
    feeds = _feeds_by_tensor(meta, model, config.feed, config.max_input_mb * MEGABYTE)
    inputs = _inputs(config, meta, model, fetches, feeds)
    fed = [*feeds, *inputs.rows]
    classify = not config.fetch or inputs.labels is not None
    wanted = list(dict.fromkeys([*fetches, *(plan.report_tensors(model) if classify else ())]))
    plan.check_all_fed(meta, wanted, fed)
    for name in plan.unneeded(meta, wanted, fed):
        logging.warning("%s is fed, and none of %s needs it", name, ", ".join(wanted))
    needed = sub_graph(meta, wanted, fed)
    for name in plan.own_data(needed):
        logging.warning(
            "%s (OneShotIterator) gives data that the graph has of its own, as for its training: "
            "feed what comes out of it",
            name,
        )
    with load_inference_graph(
        meta,
        wanted,
        fed,
        trust_graph=config.trust_graph,
        assets=_assets(config.asset),
        time_limit=config.limit,
    ) as graph:
        values = [value_for(info, feeds, inputs) for info in graph.feeds]
        results = _results(graph, values, meta, config.batch_size)
    outputs = {name: results[name] for name in fetches}
    classification = _classification(results, model, inputs) if classify else None
    checkpoint = checkpoint_state.checkpoint_of(meta)
    shown = report.Report(meta.path, checkpoint, outputs, classification, rows=not config.fetch)
    return shown, inputs


def _feeds_by_tensor(
    meta: MetaGraphFile, model: Model, texts: Sequence[str], max_bytes: int
) -> dict[str, Feed]:
    """What --feed gives, by the full names of the tensors."""
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(texts, max_bytes):
        name = meta.tensor_name(feed.name, model.feed_keys)
        if name in feeds:
            raise PredictionError(f"{name} is fed twice: {feeds[name].source}, {feed.source}")
        feeds[name] = feed
    return feeds


def _inputs(
    config: PredictConfig,
    meta: MetaGraphFile,
    model: Model,
    fetches: Sequence[str],
    feeds: Mapping[str, Feed],
) -> RowInputs:
    """The rows of --input, or those for a demonstration; none of either."""
    if config.input:
        max_bytes = config.max_input_mb * MEGABYTE
        paths = files_by_tensor(meta, model, fetches, config.input, feeds, max_bytes)
        with config.limit.over(_READING):
            infos = describe_tensors(meta, [*paths])
        return open_inputs(infos, model, paths, max_bytes)
    missing = plan.unfed(meta, fetches, feeds)
    if feeds or model.trained_on != RAMP or missing != tuple(model.inputs.values()):
        return RowInputs()
    logging.info("trained on the built-in ramp: without --input, its two demo images it is")
    (info,) = describe_tensors(meta, missing)
    return open_demo(info, model)


def _results(
    graph: InferenceGraph,
    values: Sequence[Rows | Array],
    meta: MetaGraphFile,
    batch_size: int | None,
) -> dict[str, Array]:
    """The value of each fetched tensor, by name."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    first_run = functools.partial(warn_if_random, graph)
    if len(arrays) == len(values):
        results = graph.run(*arrays)
        first_run(arrays, results)
    else:
        results = run_rows(graph, values, _kinds(graph, values, meta), batch_size, first_run)
    names = [info.name for info in graph.fetches]
    return {name: _plain(name, value) for name, value in zip(names, results, strict=True)}


def _kinds(
    graph: InferenceGraph, values: Sequence[Rows | Array], meta: MetaGraphFile
) -> list[Kind]:
    """How each fetched tensor goes with the rows."""
    by_rows = {
        info.name: value
        for info, value in zip(graph.feeds, values, strict=True)
        if not isinstance(value, np.ndarray)
    }
    columns = any(isinstance(value, ColumnRows) for value in by_rows.values())
    names = [*by_rows]
    return [
        kind_of(info, plan.depends_on(meta, info.name, names), columns) for info in graph.fetches
    ]


def _plain(name: str, value: Array) -> Array:
    """A result in a dtype that everyone can read, see `as_numpy_dtype`."""
    plain = as_numpy_dtype(value)
    if plain.dtype != value.dtype:
        logging.info("%s: its %s values are given as %s", name, value.dtype, plain.dtype)
    return plain


def _classification(
    results: Mapping[str, Array], model: Model, inputs: RowInputs
) -> Classification | None:
    if model.classifier is None:
        return None
    classes = results[model.classifier.classes]
    probabilities = results[model.classifier.probabilities]
    names = inputs.names if inputs.rows else [str(row) for row in range(classes.size)]
    if not classes.shape == probabilities.shape[:1] == (len(names),):
        return None  # The signature names tensors that have nothing to do with the rows.
    if classes.min() < 0 or classes.max() >= probabilities.shape[1]:
        return None  # Nor with each other.
    return Classification(
        names=names,
        classes=classes,
        probabilities=probabilities,
        labels=inputs.labels,
        class_names=model.class_names,
    )
