"""Which classes a classifier takes for which."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prediction.classification import Classification, accuracy
from prediction.command import Classified
from tools.common.errors import ToolError
from tools.plotting.labelled import labels_of
from tools.plotting.picture import Picture, as_label, new_figure, short_path

_MAX_CLASSES_WITH_COUNTS = 30  # More would not be readable.
_MAX_NAMES = 60  # At an edge.
_MAX_CLASSES = 2000
_SHORT_NAME = 3  # Letters, up to which names fit beside each other.
_CELL, _LEAST, _MOST = 0.45, 3.2, 12.0  # Inches: of a cell, and of the matrix's side.
_MARGINS = 3.0, 2.0  # Inches, beside the matrix, and above and below it.
_DARK = 0.5  # The share from which on a cell's text is white.

Counts = npt.NDArray[np.int64]


def confusion_matrix(labels: Counts, classes: Counts, shown: Counts) -> Counts:
    """How many rows of each true class have each predicted one.

    Args:
      labels: int64 [N], the true classes.
      classes: int64 [N], the predicted ones.
      shown: int64 [K], rising, the classes that there are.

    Returns:
      int64 [K, K], the true class first.
    """
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    np.add.at(matrix, (np.searchsorted(shown, labels), np.searchsorted(shown, classes)), 1)
    return matrix


def draw_confusion(found: Classified) -> Picture:
    """Draws the counts, each cell coloured by its share of the rows of its true class.

    Raises:
      ToolError: the labels are not known, or there are too many classes for a picture.
    """
    result, labels = found.result, labels_of(found)
    shown = _shown_classes(result, labels)
    matrix = confusion_matrix(labels, result.classes, shown)
    names = [result.class_name(index) for index in shown.tolist()]
    share = accuracy(result, labels)
    title = f"{short_path(found.checkpoint or found.meta)}\n{len(labels)} rows, accuracy {share}"
    return Picture(
        _draw_matrix(matrix, [*map(as_label, names)], title),
        f"{len(labels)} rows of {len(shown)} classes, accuracy {share}",
        {
            "meta": found.meta,
            "checkpoint": found.checkpoint,
            "rows": len(labels),
            "accuracy": share.accuracy,
            "classes": names,
            "counts": matrix.tolist(),
        },
    )


def _draw_matrix(matrix: Counts, names: Sequence[str], title: str) -> Figure:
    side = min(max(_CELL * len(names), _LEAST), _MOST)
    figure = new_figure(side + _MARGINS[0], side + _MARGINS[1])
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if len(names) <= _MAX_CLASSES_WITH_COUNTS:
        _write_counts(axes, matrix, shares)
    _name_classes(axes, names)
    axes.set_title(title)
    return figure


def _shown_classes(result: Classification, labels: Counts) -> Counts:
    """All classes, or where these are many, those that occur."""
    num_classes = result.probabilities.shape[1]
    if num_classes <= _MAX_NAMES:
        return np.arange(num_classes)
    found = np.unique([labels, result.classes])
    if len(found) > _MAX_CLASSES:
        raise ToolError(
            f"{len(found)} classes are too many for a picture, expected at most {_MAX_CLASSES}: "
            "give --input fewer classes"
        )
    return found


def _write_counts(axes: Axes, matrix: Counts, shares: npt.NDArray[np.float64]) -> None:
    """Each cell's count, and lines between the cells."""
    between = np.arange(len(matrix) - 1) + 0.5
    axes.hlines(between, -0.5, len(matrix) - 0.5, color="white", linewidth=1.0)
    axes.vlines(between, -0.5, len(matrix) - 0.5, color="white", linewidth=1.0)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if shares[row, column] > _DARK else "black"
        size = 10 if count < 10_000 else 7
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // _MAX_NAMES)
    places = range(0, len(names), every)
    axes.set_yticks(places, names[::every])
    axes.set_xticks(places, names[::every])
    if max(map(len, names)) > _SHORT_NAME:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
