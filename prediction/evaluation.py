"""One prediction from start to end: what predict.py does once its flags are read.

Whatever a user can mend is a CheckpointError, DataError or PredictionError of one line.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from errors import PredictionError
from metagraph.description import Array, Model, RunnableGraph, TensorInfo, as_numpy_dtype
from prediction import output, plan
from prediction.file_inputs import RowInputs, Rows
from prediction.onnx_file import OnnxFile, find_onnx
from prediction.output import Classification, Report
from prediction.plan import Feed, ModelFile, answers
from prediction.request import MEGABYTE, PredictConfig
from prediction.row_runs import Kind, run_rows, warn_if_random

_SHOWN = 8  # Test images of a model of the built-in shapes, where no rows are given.
_OF = " of "  # Between a tensor and the image that a result is for; no tensor's name has spaces.


def predict(config: PredictConfig) -> str:
    """Predicts, writes the output file where one is asked for, and returns what to print."""
    if path := find_onnx(config.meta):
        return _predict(config, OnnxFile(path, config))
    from prediction import chosen_model

    return chosen_model.with_chosen(config, lambda c: _predict(c, chosen_model.open_graph(c)))


def _predict(config: PredictConfig, meta: ModelFile) -> str:
    if config.list:
        return _listing(config, meta)
    model = answers(meta).model(config)
    if config.output is not None:
        output.check_output(config.output, [*config.input, *config.feed])
    result, inputs = evaluate(config, meta, model)
    if config.output is not None:
        output.write_outputs(config.output, result.outputs, inputs.names)
    if config.format == "json":
        return output.as_json(result)
    _say_what_was_read(meta)
    return output.as_text(result, shorten=sys.stdout.isatty())


def _listing(config: PredictConfig, meta: ModelFile) -> str:
    """What the file holds, and whether its checkpoint has what the outputs need."""
    content, problems, end = answers(meta).listing(config)
    if config.format == "json":
        state = {"meta": meta.path, "checkpoint": answers(meta).checkpoint, "problems": problems}
        return json.dumps(content | state, ensure_ascii=False)
    _say_what_was_read(meta)
    return output.listing_text(content) + end


def _say_what_was_read(meta: ModelFile) -> None:
    """For text, whose lines on stdout are results alone; JSON has a place for it."""
    checkpoint = answers(meta).checkpoint
    variables = f", variables {checkpoint}" if checkpoint else ", which has no variables"
    if isinstance(meta, OnnxFile):
        variables = ", run by onnxruntime"
    elif checkpoint and meta.averaged:
        variables += ", in place of some their moving averages"
    logging.info("graph %s%s", meta.path, variables)


class Classified(NamedTuple):
    """What a classifier says of rows, and the rows; `checkpoint` is None without variables."""

    meta: str
    checkpoint: str | None
    model: Model
    inputs: RowInputs
    result: Classification


def classify(config: PredictConfig) -> Classified:
    """Predicts with a classifier; fetches, format and output of `config` are left alone.

    Without rows, a model of the built-in shapes is tested on all of their test images.
    """
    from prediction.chosen_model import with_model

    return with_model(config, functools.partial(_classify, config))


def _classify(config: PredictConfig, meta: ModelFile, model: Model) -> Classified:
    if model.classifier is None:
        raise PredictionError(
            f"{meta.path} does not say that it is a classifier: expected a signature with the "
            "results 'probabilities' [?, classes] and 'classes' [?]; predict.py --list shows what "
            "it has"
        )
    found, inputs = evaluate(dataclasses.replace(config, fetch=()), meta, model, shown=None)
    if found.classification is None:
        raise PredictionError(
            f"{meta.path}: its {model.classifier.probabilities} and {model.classifier.classes} "
            "do not fit the rows, or each other"
        )
    return Classified(found.meta, found.checkpoint, model, inputs, found.classification)


# The run itself: what is fetched, what is fed, and what comes of it.


def evaluate(
    config: PredictConfig, meta: ModelFile, model: Model, shown: int | None = _SHOWN
) -> tuple[Report, RowInputs]:
    """The results, and the rows that they are for; `shown` is that of `plan.open_demo`."""
    fetches = plan.choose_fetches(meta, model, config.fetch)
    feeds = plan.feeds_by_tensor(meta, model, config.feed, config.max_input_mb * MEGABYTE)
    inputs = _inputs(config, meta, model, fetches, feeds, shown)
    fed = [*feeds, *inputs.rows]
    is_report = not config.fetch or inputs.labels is not None
    wanted = list(dict.fromkeys([*fetches, *(plan.report_tensors(model) if is_report else ())]))
    plan.check_fed(meta, wanted, fed)
    with answers(meta).load(wanted, fed, config) as graph:
        values = [plan.value_for(info, feeds, inputs) for info in graph.feeds]
        results = _results(graph, values, inputs.names, meta, config)
    outputs = {n: v for n, v in results.items() if {n, n.partition(_OF)[0]} & {*fetches}}
    classification = _classification(results, model, inputs) if is_report else None
    checkpoint = answers(meta).checkpoint
    rows = not config.fetch
    return Report(meta.path, checkpoint, outputs, classification, rows, config.top_k), inputs


def _inputs(
    config: PredictConfig,
    meta: ModelFile,
    model: Model,
    fetches: Sequence[str],
    feeds: Mapping[str, Feed],
    shown: int | None,
) -> RowInputs:
    """The rows of --input, or those of the built-in data that the model was trained on."""
    if config.input:
        paths = plan.files_by_tensor(meta, model, fetches, config.input, feeds)
        infos = answers(meta).describe([*paths], config)
        return plan.open_inputs(infos, model, paths, config)
    missing = plan.unfed(meta, fetches, feeds)
    is_input = len(missing) == 1 and missing == tuple(model.inputs.values())
    if feeds or model.trained_on is None or not is_input:
        return RowInputs()
    (info,) = answers(meta).describe(missing, config)
    return plan.open_demo(info, model, shown)


def _results(
    graph: RunnableGraph,
    values: Sequence[Rows | Array],
    row_names: Sequence[str],
    meta: ModelFile,
    config: PredictConfig,
) -> dict[str, Array]:
    """The values of fetched tensors, by name; `y:0 of a.png` where images differ in its shape."""
    fed = {i.name: v for i, v in zip(graph.feeds, values, strict=True) if isinstance(v, Rows)}
    if fed:
        kinds = [_kind(meta, info, fed) for info in graph.fetches]
        results = run_rows(graph, values, kinds, config.batch_size, exact=config.exact_rows)
        if any(rows.columns for rows in fed.values()):
            for number, (info, kind) in enumerate(zip(graph.fetches, kinds, strict=True)):
                if kind is not Kind.CONSTANT and info.shape and info.shape[-1] is None:
                    results[number] = np.moveaxis(results[number], -1, 0)
    else:
        arrays = [value for value in values if not isinstance(value, Rows)]
        results = graph.run(*arrays)
        warn_if_random(graph, arrays, results)
    plain: dict[str, Array] = {}
    for info, value in zip(graph.fetches, results, strict=True):
        if isinstance(value, list):
            names = (f"{info.name}{_OF}{row}" for row in row_names)
            plain.update(zip(names, map(as_numpy_dtype, value), strict=True))
            continue
        plain[info.name] = as_numpy_dtype(value)
        if plain[info.name].dtype != value.dtype:
            dtypes = value.dtype, plain[info.name].dtype
            logging.info("%s: its %s values are given as %s", info.name, *dtypes)
    return plain


def _classification(
    results: Mapping[str, Array], model: Model, inputs: RowInputs
) -> Classification | None:
    if model.classifier is None or not {*model.classifier[:2]} <= {*results}:
        return None
    classes = results[model.classifier.classes]
    probabilities = results[model.classifier.probabilities]
    names = inputs.names if inputs.rows else [str(row) for row in range(classes.size)]
    if not classes.shape == probabilities.shape[:1] == (len(names),):
        return None  # The signature names tensors that have nothing to do with the rows.
    if classes.min() < 0 or classes.max() >= probabilities.shape[1]:
        return None  # Nor with each other.
    return Classification(names, classes, probabilities, inputs.labels, model.class_names)


def _kind(meta: ModelFile, info: TensorInfo, fed: Collection[str]) -> Kind:
    """The kind of a fetched tensor, where rows are fed to those of these names."""
    if not answers(meta).depends(info.name, fed):
        return Kind.CONSTANT
    shape = info.shape
    return Kind.ROWS if shape is None or (shape and shape[0] is None) else Kind.WHOLE
