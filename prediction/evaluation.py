"""One prediction from start to end: what predict.py does once its flags are read.

A model is run once, or batch after batch: what is fed, what is fetched, what it says.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from absl import logging
from tqdm import tqdm

from data.batches import read_ahead
from data.options import RAMP
from errors import PredictionError
from metagraph.casting import Array, as_numpy_dtype
from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.model import (
    Model,
    checkpoint_of,
    checkpoint_state,
    read_model,
    state_record,
    state_text,
)
from metagraph.session import InferenceGraph, describe_tensors, load_inference_graph, warn_if_random
from prediction import output, plan
from prediction.batching import (
    Batching,
    Collected,
    FilledRun,
    Kind,
    Layout,
    choose_batching,
    fill_up,
    kind_of,
)
from prediction.chosen_model import (
    READING,
    describe,
    listing,
    listing_json,
    listing_text,
    open_graph,
    with_chosen,
    with_model,
)
from prediction.output import Classification, Report, check_output, write_outputs
from prediction.plan import Feed, assets_by_name, read_feeds
from prediction.request import MEGABYTE, PredictConfig
from prediction.row_inputs import RowInputs, files_by_tensor, open_demo, open_inputs, value_for
from prediction.rows import ColumnRows, Rows

FirstRun = Callable[[Sequence[Array], Sequence[Array]], None]


def run_rows(
    graph: InferenceGraph,
    feeds: Sequence[Rows | Array],
    kinds: Sequence[Kind],
    batch_size: int | None = None,
    first_run: FirstRun | None = None,
) -> list[Array]:
    """Runs all rows through the graph.

    Where a tensor that is fed by rows has a fixed first dimension, each run has as many rows: the
    last one is filled up, and its results are cut back.

    Args:
      graph: the restored graph.
      feeds: for each of `graph.feeds`, rows to be fed a batch at a time, or an array to be fed
        as it is in every batch. At least one has rows, and all that have are of equal length.
      kinds: of each of `graph.fetches`.
      batch_size: rows a run; the last batch is simply shorter, unless the graph or one of its
        fetches is made for exactly that many. None is a fast one, or, where a fetched tensor is
        one value over all rows, one run of them all.
      first_run: called with what the first run was fed and what it gave.

    Returns:
      For each fetch: its rows in order, or its value where it has none.

    Raises:
      PredictionError: a value over all rows is asked for in several batches, or in one that is
        filled up; or --batch_size is not the one that the graph takes.
      CheckpointError: the graph fails.
    """
    by_rows = [not isinstance(feed, np.ndarray) for feed in feeds]
    num_rows = len(feeds[by_rows.index(True)])
    fetches = [*zip(graph.fetches, kinds, strict=True)]
    batching = choose_batching(
        [*zip(graph.feeds, feeds, strict=False)], fetches, batch_size, num_rows
    )
    size, fixed, declared = batching
    collected = None
    with _progress_bar(num_rows) as progress:
        for step, fed in enumerate(_batches(feeds, batching, num_rows)):
            results, rows = graph.run(*fed), min(size, num_rows - step * size)
            if collected is None:
                if first_run is not None:
                    first_run(fed, results)
                first = FilledRun(graph.run, fed, by_rows, results, declared)
                filled = first if fixed and num_rows != size else None
                collected = _collected(fetches, filled, num_rows)
            collected.add(step * size, rows, size if fixed else rows, results)
            progress.update(rows)
    return collected.values if collected else []


def _batches(
    feeds: Sequence[Rows | Array], batching: Batching, num_rows: int
) -> Iterator[list[Array]]:
    """What each run is fed, read while the one before it runs."""

    def batch(step: int) -> list[Array]:
        start = step * batching.size
        stop = min(start + batching.size, num_rows)
        return [_cut(feed, start, stop) for feed in feeds]

    def _cut(feed: Rows | Array, start: int, stop: int) -> Array:
        if isinstance(feed, np.ndarray):
            return feed
        values = feed.batch(start, stop)
        return fill_up(values, batching.size) if batching.fixed else values

    return read_ahead(batch, 0, -(-num_rows // batching.size))


def _collected(
    fetches: Sequence[tuple[TensorInfo, Kind]], filled: FilledRun | None, num_rows: int
) -> Collected:
    """What gathers the results, once it is known where the rows are in each.

    Args:
      fetches: each tensor, with how it goes with the rows.
      filled: the first run of a graph that takes a fixed number of rows, where another number is
        given; None where the rows are as the kinds say.
      num_rows: in all.
    """
    names = [info.name for info, _ in fetches]
    if filled is None:
        return Collected(names, [Layout(kind) for _, kind in fetches], num_rows)
    layouts = [filled.layout(i, info.name, kind) for i, (info, kind) in enumerate(fetches)]
    return Collected(names, layouts, num_rows)


def _progress_bar(num_rows: int) -> "tqdm[NoReturn]":
    """A bar that appears after a second, on a terminal only, and goes when it is full."""
    return tqdm(total=num_rows, unit="row", file=sys.stderr, disable=None, leave=False, delay=1)


# One run of a model, or of it batch by batch: what is fed, what is fetched, what it says.


def evaluate(config: PredictConfig, meta: MetaGraphFile, model: Model) -> tuple[Report, RowInputs]:
    """The results, and the rows that they are for.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
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
        assets=assets_by_name(config.asset),
        time_limit=config.limit,
    ) as graph:
        values = [value_for(info, feeds, inputs) for info in graph.feeds]
        results = _results(graph, values, meta, config.batch_size)
    outputs = {name: results[name] for name in fetches}
    classification = _classification(results, model, inputs) if classify else None
    checkpoint = checkpoint_of(meta)
    shown = Report(meta.path, checkpoint, outputs, classification, rows=not config.fetch)
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
        with config.limit.over(READING):
            infos = describe_tensors(meta, [*paths])
        return open_inputs(infos, model, paths, max_bytes, ignore_exif=config.ignore_exif)
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


# One prediction from start to end: what predict.py does once its flags are read.


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

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    return with_chosen(config, _predict_with)


def classify(config: PredictConfig) -> Classified:
    """Predicts as `predict` does, with a classifier, and returns what it says of each row.

    Of `config`, what is to be fetched, printed and written is left alone.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    return with_model(config, functools.partial(_classify, config))


def _predict_with(config: PredictConfig) -> str:
    meta = open_graph(config)
    if config.list:
        return _listing(config, meta)
    model = describe(config, meta)
    if config.output is not None:
        check_output(config.output, [*config.input, *config.feed])
    result, inputs = evaluate(config, meta, model)
    if config.output is not None:
        write_outputs(config.output, result.outputs, inputs.names)
    if config.format == "json":
        return output.as_json(result)
    _say_what_was_read(meta)
    return output.as_text(result)


def _classify(config: PredictConfig, meta: MetaGraphFile, model: Model) -> Classified:
    if model.classifier is None:
        raise PredictionError(
            f"{meta.path} does not say that it is a classifier: expected a signature with the "
            "results 'probabilities' [?, classes] and 'classes' [?]; predict.py --list shows what "
            "it has"
        )
    found, inputs = evaluate(dataclasses.replace(config, fetch=()), meta, model)
    if found.classification is None:
        raise PredictionError(
            f"{meta.path}: its {model.classifier.probabilities} and {model.classifier.classes} "
            "do not fit the rows, or each other"
        )
    return Classified(found.meta, found.checkpoint, model, inputs, found.classification)


def _listing(config: PredictConfig, meta: MetaGraphFile) -> str:
    """What the graph holds, and whether its checkpoint has what the outputs need."""
    with config.limit.over("listing the graph"):
        content = listing(meta, read_model(meta, config.signature))
    outputs = [record["name"] for record in content["outputs"] or content["candidates"]]
    state = checkpoint_state(meta, outputs)
    if config.format == "json":
        return listing_json(content | state_record(meta, state))
    _say_what_was_read(meta)
    return listing_text(content) + state_text(state)


def _say_what_was_read(meta: MetaGraphFile) -> None:
    """For text, whose lines on stdout are results alone; JSON has a place for it."""
    checkpoint = checkpoint_of(meta)
    variables = f", variables {checkpoint}" if checkpoint else ", which has no variables"
    logging.info("graph %s%s", meta.path, variables)
