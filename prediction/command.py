"""One prediction from start to end: what predict.py does once its flags are read."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints.errors import CheckpointError
from checkpoints.inference_graph import InferenceGraph, describe_tensors, load_inference_graph
from checkpoints.manifest import verify_checkpoint
from checkpoints.meta_graph_file import MetaGraphFile, read_meta_graph
from checkpoints.newest import newest_meta_graph, say_if_gone
from data.image_data import RAMP
from prediction import listing, plan, report
from prediction.casting import Array
from prediction.classification import Classification
from prediction.errors import PredictionError
from prediction.feeds import Feed, feed_value, read_feeds
from prediction.inputs import MAX_BYTES, Input, Target, demo_input, open_input
from prediction.model import Model, read_model
from prediction.output_file import check_output, write_outputs
from prediction.rows import ArrayRows, Rows
from prediction.runner import kind_of, run_rows


@dataclass(frozen=True)
class PredictConfig:
    """What is asked for.

    Attributes:
      meta: the `.meta` file, or a folder for its newest checkpoint.
      fetch: tensor names; empty for the graph's own prediction.
      input: a file or folder of rows, None for none.
      feed: as `prediction.feeds.read_feeds` takes them.
      list: only say what the graph holds.
      batch_size: rows a run, None for a fast one.
      format: of what is printed, `text` or `json`.
      output: a file to write, None for none.
    """

    meta: str
    fetch: Sequence[str] = ()
    input: str | None = None
    feed: Sequence[str] = ()
    list: bool = False
    batch_size: int | None = None
    format: str = "text"
    output: str | None = None


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print.

    A folder as `meta` stands for its newest checkpoint. Where a trainer deletes that while it is
    being read, the next newest is read in its place.

    Raises:
      CheckpointError, DataError, PredictionError: one line for the user.
    """
    if not tf.io.gfile.isdir(config.meta):
        return _predict(config)
    newest = newest_meta_graph(config.meta)
    while True:
        try:
            return _predict(dataclasses.replace(config, meta=newest))
        except CheckpointError as error:
            before, newest = newest, newest_meta_graph(config.meta)
            if newest == before:
                raise
            logging.warning("%s; reading %s", error, newest)


def _predict(config: PredictConfig) -> str:
    """Predicts with the checkpoint of one `.meta` file."""
    try:
        return _predict_with(config)
    except CheckpointError as error:
        raise say_if_gone(error, config.meta) from error


def _predict_with(config: PredictConfig) -> str:
    meta = read_meta_graph(config.meta)
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
    feeds = _feeds_by_tensor(meta, config.feed)
    row_input = _row_input(config, meta, model, fetches, feeds)
    opened = None if row_input is None else _open(config, meta, model, row_input)
    fed = [*feeds] if row_input is None else [*feeds, row_input]
    labels_known = opened is not None and opened.labels is not None
    classify = not config.fetch or labels_known
    wanted = list(dict.fromkeys([*fetches, *(plan.report_tensors(model) if classify else ())]))
    plan.check_all_fed(meta, wanted, fed)
    for name in plan.unneeded(meta, wanted, fed):
        logging.warning("%s is fed, and none of %s needs it", name, ", ".join(wanted))
    with load_inference_graph(meta, wanted, fed) as graph:
        values = _values(graph, feeds, opened)
        results = _results(graph, values, meta, config.batch_size)
    outputs = {name: results[name] for name in fetches}
    classification = _classification(results, model, opened) if classify else None
    row_names = opened.names if opened else ()
    return report.Report(meta.path, outputs, classification, rows=not config.fetch), row_names


def _feeds_by_tensor(meta: MetaGraphFile, texts: Sequence[str]) -> dict[str, Feed]:
    """What --feed gives, by the full names of the tensors."""
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(texts, MAX_BYTES):
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
        return open_input(config.input, target)
    logging.info("trained on the built-in ramp: without --input, its two demo images it is")
    return demo_input(target)


def _values(
    graph: InferenceGraph, feeds: Mapping[str, Feed], opened: Input | None
) -> list[Rows | Array]:
    """The value of each of the graph's feeds.

    A value of --feed goes along with the rows of --input, a batch at a time, where it has as many
    and its tensor takes any number of them; else it is fed as it is in each batch.
    """
    values: list[Rows | Array] = []
    for info in graph.feeds:
        if info.name not in feeds and opened is not None:
            values.append(opened.rows)
            continue
        value = feed_value(feeds[info.name], info)
        any_number = info.shape is None or info.shape[:1] == (None,)
        by_rows = opened is not None and any_number and value.shape[:1] == (len(opened.rows),)
        source = feeds[info.name].source
        values.append(ArrayRows(value, info, source) if by_rows else value)
    return values


def _results(
    graph: InferenceGraph,
    values: Sequence[Rows | Array],
    meta: MetaGraphFile,
    batch_size: int | None,
) -> dict[str, Array]:
    """The value of each fetched tensor, by name."""
    names = [info.name for info in graph.fetches]
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if len(arrays) == len(values):
        return dict(zip(names, graph.run(*arrays), strict=True))
    rows = [
        info.name
        for info, value in zip(graph.feeds, values, strict=True)
        if not isinstance(value, np.ndarray)
    ]
    kinds = [kind_of(info, plan.depends_on(meta, info.name, rows)) for info in graph.fetches]
    return dict(zip(names, run_rows(graph, values, kinds, batch_size), strict=True))


def _classification(
    results: Mapping[str, Array], model: Model, opened: Input | None
) -> Classification | None:
    if model.classifier is None:
        return None
    classes = results[model.classifier.classes]
    return Classification(
        names=opened.names if opened else [str(row) for row in range(len(classes))],
        classes=classes,
        probabilities=results[model.classifier.probabilities],
        labels=opened.labels if opened else None,
        class_names=model.class_names,
    )
