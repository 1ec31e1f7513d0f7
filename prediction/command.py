"""One prediction from start to end: what predict.py does once its flags are read."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import (
    InferenceGraph,
    TensorInfo,
    describe_tensors,
    load_inference_graph,
)
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.sub_graph import sub_graph
from checkpoints.manifest import verify_checkpoint
from checkpoints.newest import say_if_gone
from data.image_data import RAMP
from prediction import listing, plan, report
from prediction.casting import Array, as_numpy_dtype
from prediction.classification import Classification
from prediction.collected import Kind, kind_of
from prediction.errors import PredictionError
from prediction.feeds import Feed, feed_value, read_feeds
from prediction.inputs import MAX_BYTES, Input, Target, demo_input, open_input
from prediction.model import Model, read_model
from prediction.output_file import check_output, write_outputs
from prediction.overtime import watched
from prediction.randomness import random_nodes, warn_if_random
from prediction.rows import ArrayRows, ColumnRows, Rows
from prediction.runner import run_rows

MEGABYTE = 2**20


@dataclass(frozen=True)
class PredictConfig:
    """What is asked for.

    Attributes:
      meta: what `open_model` takes: a `.meta` file, or a folder for its newest checkpoint, and so
        on.
      fetch: tensor names; empty for the graph's own prediction.
      input: a file or folder of rows, None for none.
      feed: as `prediction.feeds.read_feeds` takes them.
      asset: files for lookup tables, each `name=path`.
      list: only say what the graph holds.
      batch_size: rows a run, None for a fast one.
      format: of what is printed, `text` or `json`.
      output: a file to write, None for none.
      trust_graph: run also operations that may do more than compute.
      time_limit: seconds that one run of the graph may take, 0 for no limit.
      end: called in another thread, with one line, where a run neither ends nor can be cancelled
        some seconds after the time limit; it is to end the process. None to wait for the run.
      max_input_mb: megabytes (2**20 bytes) that one file of input may unpack to.
      max_meta_bytes: the size of the largest file of a graph that is read.
    """

    meta: str
    fetch: Sequence[str] = ()
    input: str | None = None
    feed: Sequence[str] = ()
    asset: Sequence[str] = ()
    list: bool = False
    batch_size: int | None = None
    format: str = "text"
    output: str | None = None
    trust_graph: bool = False
    time_limit: float = 60.0
    end: Callable[[str], None] | None = None
    max_input_mb: int = MAX_BYTES // MEGABYTE
    max_meta_bytes: int = DEFAULT_MAX_BYTES


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print.

    A folder as `meta` stands for its newest checkpoint. Where a trainer deletes that while it is
    being read, the next newest is read in its place.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    if not tf.io.gfile.isdir(config.meta):
        return _predict(config)
    newest = find_model(config.meta)
    while True:
        try:
            return _predict(dataclasses.replace(config, meta=newest))
        except CheckpointError as error:
            before, newest = newest, find_model(config.meta)
            if newest == before:
                raise
            logging.warning("%s; reading %s", error, newest)


def _predict(config: PredictConfig) -> str:
    """Predicts with one model."""
    try:
        return _predict_with(config)
    except CheckpointError as error:
        raise say_if_gone(error, config.meta) from error


def _predict_with(config: PredictConfig) -> str:
    meta = open_model(config.meta, config.max_meta_bytes)
    verify_checkpoint(meta.prefix)
    model = read_model(meta)
    if config.list:
        content = listing.listing(meta, model)
        return listing.as_json(content) if config.format == "json" else listing.as_text(content)
    if config.output is not None:
        check_output(config.output)
    result, row_names = _run(config, meta, model)
    if config.output is not None:
        write_outputs(config.output, result.outputs, row_names)
    return report.as_json(result) if config.format == "json" else report.as_text(result)


def _run(
    config: PredictConfig, meta: MetaGraphFile, model: Model
) -> tuple[report.Report, Sequence[str]]:
    """The results, and the names of the rows that they are for."""
    fetches = plan.choose_fetches(meta, model, config.fetch)
    feeds = _feeds_by_tensor(meta, config.feed, config.max_input_mb * MEGABYTE)
    row_input = _row_input(config, meta, model, fetches, feeds)
    opened = None if row_input is None else _open(config, meta, model, row_input)
    fed = [*feeds] if row_input is None else [*feeds, row_input]
    labels_known = opened is not None and opened.labels is not None
    classify = not config.fetch or labels_known
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
    random = random_nodes(needed.graph_def)
    with load_inference_graph(
        meta,
        wanted,
        fed,
        trust_graph=config.trust_graph,
        assets=dict(text.split("=", 1) for text in config.asset),
        time_limit=config.time_limit,
    ) as graph:
        values = [_value(info, feeds, opened) for info in graph.feeds]
        with watched(graph, config.time_limit, config.end):
            results = _results(graph, values, meta, config.batch_size, random)
    outputs = {name: results[name] for name in fetches}
    classification = _classification(results, model, opened) if classify else None
    row_names = opened.names if opened else ()
    return report.Report(meta.path, outputs, classification, rows=not config.fetch), row_names


def _feeds_by_tensor(meta: MetaGraphFile, texts: Sequence[str], max_bytes: int) -> dict[str, Feed]:
    """What --feed gives, by the full names of the tensors."""
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(texts, max_bytes):
        name = meta.tensor_name(feed.name)
        if name in feeds:
            raise PredictionError(f"{name} is fed twice: {feeds[name].source}, {feed.source}")
        feeds[name] = feed
    return feeds


def _row_input(
    config: PredictConfig,
    meta: MetaGraphFile,
    model: Model,
    fetches: Sequence[str],
    feeds: Mapping[str, Feed],
) -> str | None:
    """The tensor that rows are fed to, from --input or for a demonstration; None for none."""
    if config.input is not None:
        return plan.choose_row_input(meta, model, fetches, feeds)
    missing = plan.unfed(meta, fetches, feeds)
    is_ramp = model.trained_on == RAMP and missing == tuple(model.inputs.values())
    return missing[0] if is_ramp and not feeds else None


def _open(config: PredictConfig, meta: MetaGraphFile, model: Model, row_input: str) -> Input:
    """Opens the rows for the tensor `row_input`."""
    (info,) = describe_tensors(meta, [row_input])
    scale = model.input_scale if row_input in model.inputs.values() else None
    target = Target(info, scale, model.class_names, model.classifier)
    if config.input is not None:
        return open_input(config.input, target, config.max_input_mb * MEGABYTE)
    logging.info("trained on the built-in ramp: without --input, its two demo images it is")
    return demo_input(target)


def _value(info: TensorInfo, feeds: Mapping[str, Feed], opened: Input | None) -> Rows | Array:
    """The value of one of the graph's feeds.

    A value of --feed goes along with the rows of --input, a batch at a time, where it has as many
    and its tensor takes any number of them, or a fixed one a run; else it is fed as it is in each
    batch.
    """
    if opened is None:
        return feed_value(feeds[info.name], info)
    if info.name not in feeds:
        return opened.rows
    feed, num_rows = feeds[info.name], len(opened.rows)
    value = feed_value(feed, info, num_rows)
    if isinstance(opened.rows, ColumnRows) and value.ndim == 2 and info.shape is not None:
        by_columns = info.shape[1] is None and value.shape[1] == num_rows
        return ColumnRows(value.T, info, feed.source) if by_columns else value
    own = info.shape is not None and info.shape[:1] in ((), (num_rows,))
    by_rows = not own and value.shape[:1] == (num_rows,)
    return ArrayRows(value, info, feed.source) if by_rows else value


def _results(
    graph: InferenceGraph,
    values: Sequence[Rows | Array],
    meta: MetaGraphFile,
    batch_size: int | None,
    random: Sequence[str],
) -> dict[str, Array]:
    """The value of each fetched tensor, by name."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    first_run = functools.partial(warn_if_random, graph, random)
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
    results: Mapping[str, Array], model: Model, opened: Input | None
) -> Classification | None:
    if model.classifier is None:
        return None
    classes = results[model.classifier.classes]
    probabilities = results[model.classifier.probabilities]
    names = opened.names if opened else [str(row) for row in range(classes.size)]
    if not classes.shape == probabilities.shape[:1] == (len(names),):
        return None  # The signature names tensors that have nothing to do with the rows.
    return Classification(
        names=names,
        classes=classes,
        probabilities=probabilities,
        labels=opened.labels if opened else None,
        class_names=model.class_names,
    )
