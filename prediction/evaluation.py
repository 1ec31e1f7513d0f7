"""One run of a model, or of it batch by batch: what is fed, what is fetched, what it says."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from checkpoints.loading.inference_graph import (
    InferenceGraph,
    describe_tensors,
    load_inference_graph,
)
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.sub_graph import sub_graph
from data.options import RAMP
from prediction import checkpoint_state, plan
from prediction.assets import assets_by_name
from prediction.casting import Array, as_numpy_dtype
from prediction.chosen_model import READING
from prediction.classification import Classification
from prediction.collected import Kind, kind_of
from prediction.config import MEGABYTE, PredictConfig
from prediction.errors import PredictionError
from prediction.feeds import Feed, read_feeds
from prediction.model import Model
from prediction.randomness import warn_if_random
from prediction.report import Report
from prediction.row_inputs import (
    RowInputs,
    files_by_tensor,
    open_demo,
    open_inputs,
    value_for,
)
from prediction.rows import ColumnRows, Rows
from prediction.runner import run_rows


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
    checkpoint = checkpoint_state.checkpoint_of(meta)
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
