"""Which classes a classifier takes for which, and the rows that it is surest of, and wrong."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.images import decode_image
from errors import DataError, ToolError
from metagraph.casting import Array, json_value
from metagraph.meta import format_shape
from prediction.evaluation import Classified
from prediction.file_inputs import Rows
from prediction.output import Classification, accuracy
from tools.plot_runs import Picture, as_label, new_figure, short_path

_UINT8 = 255.0
_DECODED_SIZE = 128  # Pixels of either side, of an image that the graph itself decodes.
_ROUNDING = 1e-3
_MAX_CLASSES_WITH_COUNTS = 30  # More would not be readable.
_MAX_NAMES = 60  # At an edge.
_MAX_CLASSES = 2000
_SHORT_NAME = 3  # Letters, up to which names fit beside each other.
_DARK = 0.5  # The share from which on a cell's text is white.
_COLUMNS = 4
_MOST_LETTERS = 16
Pixels = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def labels_of(found: Classified) -> npt.NDArray[np.int64]:
    """The true class of each row: int64 [N].

    Raises:
      ToolError: they are not known, or one is of no class of the model.
    """
    if found.result.labels is None:
        raise ToolError(
            f"the true classes of the rows for {found.meta} are not known: expected --input with a "
            "folder of one subfolder a class, an .npz with X and Y, or images of MNIST's format "
            "beside their labels"
        )
    num_classes = found.result.probabilities.shape[1]
    if found.result.labels.max() >= num_classes:
        raise ToolError(
            f"expected labels from 0 to {num_classes - 1}, found {found.result.labels.max()}: "
            f"{found.meta} has no more classes"
        )
    return found.result.labels


class RowImages(NamedTuple):
    """The rows of one input, as images.

    Attributes:
      tensor: of the input.
      rows: its rows.
      shape: height, width and channels of an image; None for the bytes of an image file.
      white: the value of a white pixel; None where the graph does not say.
    """

    tensor: str
    rows: Rows
    shape: tuple[int, int, int] | None
    white: float | None

    def image(self, row: int) -> tuple[Pixels, bool]:
        """One row, as it is to be seen: float64 [height, width, 3], in [0, 1].

        Also whether it is stretched: its own least and largest values are black and white, as those
        of the model's images are not known, or other values are within it.

        Raises:
          DataError: the file cannot be read, or is damaged.
        """
        values = self.rows.batch(row, row + 1)
        if self.shape is None:
            name = f"{self.tensor} {row}"  # As the graph decodes it, which does not look at EXIF.
            return decode_image(values[0], name, _DECODED_SIZE, ignore_exif=True) / _UINT8, False
        pixels: Pixels = values.astype(np.float64).reshape(self.shape)
        low, high = float(pixels.min()), float(pixels.max())
        known = self.white is not None and low >= 0 and high <= self.white * (1 + _ROUNDING)
        if known:
            low, high = 0.0, self.white or high
        pixels = np.clip((pixels - low) / ((high - low) or 1.0), 0.0, 1.0)
        return np.broadcast_to(pixels, (*self.shape[:2], 3)), not known


def row_images(found: Classified) -> RowImages:
    """The first input whose rows are images.

    Raises:
      ToolError: there is none.
    """
    refused = []
    for name, rows in found.inputs.rows.items():
        first = rows.batch(0, 1)
        of_signature = name in found.model.inputs.values()
        shape = _image_shape(first, found.model.image_shape if of_signature else None)
        if shape is not None:
            scale = found.model.input_scale if of_signature else None
            white = None if scale is None else _UINT8 * scale
            return RowImages(name, rows, shape, _UINT8 if first.dtype == np.uint8 else white)
        if _is_image_file(first):
            return RowImages(name, rows, None, None)
        refused.append(f"{name} {format_shape(first.shape[1:])}")
    raise ToolError(
        f"{found.meta}: expected rows that are images, found {', '.join(refused) or 'none'}"
    )


def _image_shape(values: Array, of_row: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    """Height, width and channels of a batch of one row; None where it is no image."""
    if values.dtype.kind not in "fiu" or not np.isfinite(values.astype(np.float64)).all():
        return None
    if of_row is not None and values.size == math.prod(of_row) and of_row[2] in (1, 3):
        return of_row
    if values.ndim == 4 and values.shape[3] in (1, 3):
        return values.shape[1], values.shape[2], values.shape[3]
    if values.ndim == 3:
        return values.shape[1], values.shape[2], 1
    return None


def _is_image_file(values: Array) -> bool:
    """Whether a batch of one row is the bytes of an image file."""
    if values.shape != (1,) or not isinstance(values[0], bytes):
        return False
    try:
        decode_image(values[0], "", 1)
    except DataError:
        return False
    return True


def confusion_matrix(labels: Counts, classes: Counts, shown: Counts) -> Counts:
    """How many rows of each true class have each predicted one: int64 [K, K].

    Args:
      labels: int64 [N], the true classes.
      classes: int64 [N], the predicted ones.
      shown: int64 [K], rising, the classes that there are.
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
    side = min(max(0.45 * len(names), 3.2), 12.0)  # Inches.
    figure = new_figure(side + 3, side + 2)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if len(names) <= _MAX_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > _DARK else "black"
            size = 10 if count < 10_000 else 7
            axes.text(column, row, str(count), ha="center", va="center", c=colour, fontsize=size)
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


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // _MAX_NAMES)
    places = range(0, len(names), every)
    axes.set_yticks(places, names[::every])
    axes.set_xticks(places, names[::every])
    if max(map(len, names)) > _SHORT_NAME:
        axes.tick_params("x", rotation=90)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def worst_mistakes(found: Classified, most: int) -> npt.NDArray[np.int64]:
    """The numbers of rows whose class is wrong, at most so many: int64 [M], the surest first.

    Of two that are as sure, the first comes first.

    Raises:
      ToolError: the labels are not known.
    """
    wrong = np.flatnonzero(found.result.classes != labels_of(found))
    order = np.argsort(-found.result.probability[wrong].astype(np.float64), kind="stable")
    return wrong[order][:most]


def draw_mistakes(found: Classified, most: int) -> Picture:
    """Draws the worst mistakes as images; no figure where there is no mistake.

    Raises:
      ToolError: the labels are not known, or the rows are no images.
      DataError: an image can no longer be read.
    """
    labels = labels_of(found)
    worst = worst_mistakes(found, most).tolist()
    wrong = int(np.sum(found.result.classes != labels))
    told = [_record(found, row) for row in worst]
    record = {
        "meta": found.meta,
        "checkpoint": found.checkpoint,
        "rows": len(labels),
        "wrong": wrong,
        "mistakes": told,
    }
    if not worst:
        return Picture(None, f"no mistake in {len(labels)} rows: no picture is written", record)
    images = row_images(found)
    shown = [images.image(row) for row in worst]
    num_rows = -(-len(worst) // _COLUMNS)
    figure = new_figure(2.1 * _COLUMNS, 2.55 * num_rows + 0.6)
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, entry, (pixels, _) in zip(grid, told, shown, strict=False):
        axes.imshow(pixels)
        label, wrong_class = (as_label(entry[key], _MOST_LETTERS) for key in ("label", "class"))
        axes.set_title(
            f"{as_label(entry['name'], 2 * _MOST_LETTERS)}\ntrue: {label}\n"
            f"predicted: {wrong_class} {float(entry['probability']):.4f}",
            fontsize=8,
        )
    count = f"the {len(worst)} surest of {wrong}" if wrong > len(worst) else f"all {wrong}"
    summary = f"{count} mistakes in {len(labels)} rows"
    stretched = ", brightness stretched" if any(is_stretched for _, is_stretched in shown) else ""
    figure.suptitle(f"{short_path(found.checkpoint or found.meta)}\n{summary}{stretched}")
    return Picture(figure, summary + stretched, record)


def _record(found: Classified, row: int) -> dict[str, Any]:
    result = found.result
    return {
        "name": result.names[row],
        "label": result.class_name(int(labels_of(found)[row])),
        "class": result.class_name(int(result.classes[row])),
        "probability": json_value(result.probability[row]),
    }
