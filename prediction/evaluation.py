"""One prediction from start to end: what predict.py does once its flags are read.

Whatever a user can mend is a CheckpointError, DataError or PredictionError of one line.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data import RAMP
from errors import PredictionError
from metagraph.casting import Array, as_numpy_dtype
from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile
from metagraph.model import Model, checkpoint_of, missing_values, read_model, state_text
from metagraph.session import InferenceGraph, describe_tensors, load_inference_graph, warn_if_random
from prediction import chosen_model, output, plan
from prediction.output import Classification, Report
from prediction.plan import Feed, RowInputs
from prediction.request import MEGABYTE, PredictConfig, assets_by_name
from prediction.rows import ColumnRows, Rows, kind_of, run_rows


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print."""
    return chosen_model.with_chosen(config, _predict)


def _predict(config: PredictConfig) -> str:
    meta = chosen_model.open_graph(config)
    if config.list:
        return _listing(config, meta)
    model = chosen_model.describe(config, meta)
    if config.output is not None:
        output.check_output(config.output, [*config.input, *config.feed])
    result, inputs = evaluate(config, meta, model)
    if config.output is not None:
        output.write_outputs(config.output, result.outputs, inputs.names)
    if config.format == "json":
        return output.as_json(result)
    _say_what_was_read(meta)
    return output.as_text(result)


def _listing(config: PredictConfig, meta: MetaGraphFile) -> str:
    """What the graph holds, and whether its checkpoint has what the outputs need."""
    with config.limit.over("listing the graph"):
        content = chosen_model.listing(meta, read_model(meta, config.signature))
    outputs = [record["name"] for record in content["outputs"] or content["candidates"]]
    problems = missing_values(meta, outputs)
    if config.format == "json":
        state = {"meta": meta.path, "checkpoint": checkpoint_of(meta), "problems": problems}
        return json.dumps(content | state, ensure_ascii=False)
    _say_what_was_read(meta)
    return chosen_model.listing_text(content) + state_text(meta, problems)


def _say_what_was_read(meta: MetaGraphFile) -> None:
    """For text, whose lines on stdout are results alone; JSON has a place for it."""
    checkpoint = checkpoint_of(meta)
    variables = f", variables {checkpoint}" if checkpoint else ", which has no variables"
    logging.info("graph %s%s", meta.path, variables)


class Classified(NamedTuple):
    """What a classifier says of rows, and the rows; `checkpoint` is None without variables."""

    meta: str
    checkpoint: str | None
    model: Model
    inputs: RowInputs
    result: Classification


def classify(config: PredictConfig) -> Classified:
    """Predicts with a classifier; fetches, format and output of `config` are left alone."""
    return chosen_model.with_model(config, functools.partial(_classify, config))


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


# The run itself: what is fetched, what is fed, and what comes of it.


def evaluate(config: PredictConfig, meta: MetaGraphFile, model: Model) -> tuple[Report, RowInputs]:
    """The results, and the rows that they are for."""
    fetches = plan.choose_fetches(meta, model, config.fetch)
    feeds = plan.feeds_by_tensor(meta, model, config.feed, config.max_input_mb * MEGABYTE)
    inputs = _inputs(config, meta, model, fetches, feeds)
    fed = [*feeds, *inputs.rows]
    is_report = not config.fetch or inputs.labels is not None
    wanted = list(dict.fromkeys([*fetches, *(plan.report_tensors(model) if is_report else ())]))
    plan.check_all_fed(meta, wanted, fed)
    for name in plan.unneeded(meta, wanted, fed):
        logging.warning("%s is fed, and none of %s needs it", name, ", ".join(wanted))
    for name in plan.own_data(sub_graph(meta, wanted, fed)):
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
        values = [plan.value_for(info, feeds, inputs) for info in graph.feeds]
        results = _results(graph, values, meta, config.batch_size)
    outputs = {name: results[name] for name in fetches}
    classification = _classification(results, model, inputs) if is_report else None
    shown = Report(meta.path, checkpoint_of(meta), outputs, classification, rows=not config.fetch)
    return shown, inputs


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
        paths = plan.files_by_tensor(meta, model, fetches, config.input, feeds)
        with config.limit.over(chosen_model.READING):
            infos = describe_tensors(meta, [*paths])
        return plan.open_inputs(infos, model, paths, max_bytes, ignore_exif=config.ignore_exif)
    missing = plan.unfed(meta, fetches, feeds)
    if feeds or model.trained_on != RAMP or missing != tuple(model.inputs.values()):
        return RowInputs()
    logging.info("trained on the built-in ramp: without --input, its two demo images it is")
    (info,) = describe_tensors(meta, missing)
    return plan.open_demo(info, model)


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
        fed = zip(graph.feeds, values, strict=True)
        by_rows = [info.name for info, value in fed if not isinstance(value, np.ndarray)]
        columns = any(isinstance(value, ColumnRows) for value in values)
        kinds = [
            kind_of(info, plan.depends_on(meta, info.name, by_rows), columns)
            for info in graph.fetches
        ]
        results = run_rows(graph, values, kinds, batch_size, first_run)
    names = [info.name for info in graph.fetches]
    return {name: _plain(name, value) for name, value in zip(names, results, strict=True)}


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
    return Classification(names, classes, probabilities, inputs.labels, model.class_names)
