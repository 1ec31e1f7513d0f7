"""One prediction from start to end: what predict.py does once its flags are read."""

import dataclasses
import functools
from typing import NamedTuple

from absl import logging

from checkpoints.loading.meta_graph_file import MetaGraphFile
from prediction import checkpoint_state, listing, report
from prediction.chosen_model import describe, open_graph, with_chosen, with_model
from prediction.classification import Classification
from prediction.config import PredictConfig
from prediction.errors import PredictionError
from prediction.evaluation import evaluate
from prediction.model import Model, read_model
from prediction.output_file import check_output, write_outputs
from prediction.row_inputs import RowInputs


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
