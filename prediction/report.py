"""What a prediction prints on stdout: text for people, JSON for programs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from checkpoints.loading.tensor_info import format_shape
from prediction.casting import Array
from prediction.classification import Classification, accuracy, accuracy_per_class
from prediction.json_values import json_value


class Report(NamedTuple):
    """The results of one prediction.

    Attributes:
      meta: the meta graph file.
      checkpoint: the prefix of its variables; None where the graph has none.
      outputs: the value of each fetched tensor, by name.
      classification: of a classifier; None where the graph is none or it was not asked for.
      rows: whether the classification's rows are shown in place of the tensors.
    """

    meta: str
    checkpoint: str | None
    outputs: Mapping[str, Array]
    classification: Classification | None
    rows: bool


def as_text(report: Report) -> str:
    """Lines for people: a classifier's rows, or else the tensors; then the accuracies."""
    result = report.classification
    if result is not None and report.rows:
        lines = [*_row_lines(result)]
    else:
        lines = [*_tensor_lines(report.outputs)]
    if result is not None:
        lines += _accuracy_lines(result)
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """One JSON document.

    `meta` and `checkpoint` say what was read, `outputs` has each tensor's value by its name. For a
    classifier, `predictions` has `name`, `class`, `probability` and, where it is known, `label` of
    each row; with labels, `accuracy` is a number and `accuracy_per_class` one for each class.
    """
    outputs = {name: json_value(value) for name, value in report.outputs.items()}
    document: dict[str, Any] = {
        "meta": report.meta,
        "checkpoint": report.checkpoint,
        "outputs": outputs,
    }
    result = report.classification
    if result is not None and report.rows:
        document["predictions"] = _row_records(result)
    if result is not None and result.labels is not None:
        document["accuracy"] = accuracy(result, result.labels).accuracy
        shares = accuracy_per_class(result, result.labels)
        document["accuracy_per_class"] = {name: s.accuracy for name, s in shares.items()}
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def _row_lines(result: Classification) -> Iterator[str]:
    """`cat/0001.png  cat  0.9871  true: dog`, in columns."""
    predicted = [result.class_name(index) for index in result.classes.tolist()]
    name_width = max(map(len, result.names))
    class_width = max(map(len, predicted))
    labels = [None] * len(predicted) if result.labels is None else result.labels.tolist()
    for name, class_name, probability, label in zip(
        result.names, predicted, result.probability.tolist(), labels, strict=True
    ):
        line = f"{name:<{name_width}}  {class_name:<{class_width}}  {probability:.4f}"
        yield line if label is None else f"{line}  true: {result.class_name(label)}"


def _row_records(result: Classification) -> list[dict[str, Any]]:
    records = []
    probabilities = json_value(result.probability)
    for row, (name, index) in enumerate(zip(result.names, result.classes.tolist(), strict=True)):
        record = {
            "name": name,
            "class": result.class_name(index),
            "probability": probabilities[row],
        }
        if result.labels is not None:
            record["label"] = result.class_name(int(result.labels[row]))
        records.append(record)
    return records


def _accuracy_lines(result: Classification) -> Iterator[str]:
    if result.labels is None:
        return
    yield f"accuracy {accuracy(result, result.labels)}"
    for name, share in accuracy_per_class(result, result.labels).items():
        yield f"  {name} {share}"


def _tensor_lines(outputs: Mapping[str, Array]) -> Iterator[str]:
    """The name, dtype and shape of each tensor, then its value as NumPy prints it.

    NumPy shortens arrays of over 1000 values; --format=json and --output hold them all.
    """
    for name, value in outputs.items():
        yield f"{name} {_dtype(value)} {format_shape(value.shape)}"
        yield np.array2string(value)


def _dtype(value: Array) -> str:
    return "string" if value.dtype.kind == "O" else str(value.dtype)
