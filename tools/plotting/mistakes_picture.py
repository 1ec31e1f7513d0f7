"""The rows that a classifier is surest of, and wrong."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prediction.command import Classified
from prediction.json_values import json_value
from tools.plotting.labelled import labels_of
from tools.plotting.picture import Picture, as_label, new_figure, short_path
from tools.plotting.row_images import row_images

_COLUMNS = 4
_TILE = 2.1, 2.55  # Inches: width and height of an image with its texts.
_MOST_LETTERS = 16


def worst_mistakes(found: Classified, most: int) -> npt.NDArray[np.int64]:
    """The rows whose class is wrong, the surest first.

    Args:
      found: with labels.
      most: rows at most.

    Returns:
      int64 [M], numbers of rows; of two that are as sure, the first comes first.

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
    record = {
        "meta": found.meta,
        "checkpoint": found.checkpoint,
        "rows": len(labels),
        "wrong": wrong,
        "mistakes": [_record(found, row) for row in worst],
    }
    if not worst:
        return Picture(None, f"no mistake in {len(labels)} rows: no picture is written", record)
    images = row_images(found)
    shown = [images.image(row) for row in worst]
    num_rows = -(-len(worst) // _COLUMNS)
    figure = new_figure(_TILE[0] * _COLUMNS, _TILE[1] * num_rows + 0.6)
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, row, image in zip(grid, worst, shown, strict=False):
        axes.imshow(image.pixels)
        axes.set_title("\n".join(_texts(found, row)), fontsize=8)
    count = f"the {len(worst)} surest of {wrong}" if wrong > len(worst) else f"all {wrong}"
    summary = f"{count} mistakes in {len(labels)} rows"
    stretched = ", brightness stretched" if any(image.stretched for image in shown) else ""
    figure.suptitle(f"{short_path(found.checkpoint or found.meta)}\n{summary}{stretched}")
    return Picture(figure, summary + stretched, record)


def _texts(found: Classified, row: int) -> Sequence[str]:
    """What is written above an image."""
    told = _record(found, row)
    return (
        as_label(told["name"], 2 * _MOST_LETTERS),
        f"true: {as_label(told['label'], _MOST_LETTERS)}",
        f"predicted: {as_label(told['class'], _MOST_LETTERS)} {found.result.probability[row]:.4f}",
    )


def _record(found: Classified, row: int) -> dict[str, str]:
    result = found.result
    return {
        "name": result.names[row],
        "label": result.class_name(int(labels_of(found)[row])),
        "class": result.class_name(int(result.classes[row])),
        "probability": json_value(result.probability[row]),
    }
