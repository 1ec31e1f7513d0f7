"""Pictures of models: which classes are taken for which, the worst mistakes, and filters.

A filter is of any convolution, out of any graph: the kernel is whatever the convolution takes.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from errors import ToolError
from metagraph.description import Array, Model, as_numpy_dtype, format_shape, json_value
from metagraph.graph import View, data_inputs, source, sub_graph
from metagraph.meta import MetaGraphFile
from metagraph.model import find_candidates
from metagraph.session import load_inference_graph
from metagraph.variables import VARIABLE_OPS
from prediction.chosen_model import with_model
from prediction.evaluation import Classified
from prediction.output import Share
from prediction.request import ModelConfig
from tools.plotting import Picture, as_label, new_figure, short_path

_UINT8 = 255.0
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


def labels_of(found: Classified) -> Counts:
    """The true class of each row, int64 [N]; ToolError where one is not known, or of no class."""
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


def _subject(found: Classified) -> dict[str, Any]:
    """What was classified, as JSON."""
    rows = len(found.result.names)
    return {"meta": found.meta, "checkpoint": found.checkpoint, "rows": rows}


def confusion(found: Classified) -> tuple[list[str], Counts]:
    """The names of classes, and counts by true and predicted class, [classes, classes].

    Of many classes, those that occur. Raises ToolError where the labels are not known, or there are
    too many classes for a picture.
    """
    result, labels = found.result, labels_of(found)
    shown = np.arange(result.probabilities.shape[1])
    if len(shown) > _MAX_NAMES:
        shown = np.unique([labels, result.classes])
    if len(shown) > _MAX_CLASSES:
        raise ToolError(
            f"{len(shown)} classes are too many for a picture, expected at most {_MAX_CLASSES}: "
            "give --input fewer classes"
        )
    counts = np.zeros((len(shown), len(shown)), np.int64)
    np.add.at(counts, (np.searchsorted(shown, labels), np.searchsorted(shown, result.classes)), 1)
    return [result.class_name(index) for index in shown.tolist()], counts


def draw_confusion(found: Classified) -> Picture:
    """Draws the counts, each cell coloured by its share of the rows of its true class."""
    names, counts = confusion(found)
    share = Share(int(counts.trace()), int(counts.sum()))
    title = f"{short_path(found.checkpoint or found.meta)}\n{share.of} rows, accuracy {share}"
    summary = f"{share.of} rows of {len(names)} classes, accuracy {share}"
    told = {"accuracy": share.accuracy, "classes": names, "counts": counts.tolist()}
    figure = _draw_matrix(counts, [*map(as_label, names)], title)
    return Picture(figure, summary, _subject(found) | told)


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
    every = -(-len(names) // _MAX_NAMES)
    places = range(0, len(names), every)
    axes.set_yticks(places, names[::every])
    axes.set_xticks(places, names[::every])
    if max(map(len, names)) > _SHORT_NAME:
        axes.tick_params("x", rotation=90)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


def draw_mistakes(found: Classified, most: int) -> Picture:
    """Draws rows whose class is wrong as images, the surest first; no figure if there is none.

    Raises ToolError where the labels are not known, or the rows are no images.
    """
    result, labels = found.result, labels_of(found)
    wrong = np.flatnonzero(result.classes != labels)
    order = np.argsort(-result.probability[wrong].astype(np.float64), kind="stable")
    rows = wrong[order][:most].tolist()
    told = [
        {
            "name": result.names[row],
            "label": result.class_name(int(labels[row])),
            "class": result.class_name(int(result.classes[row])),
            "probability": json_value(result.probability[row]),
        }
        for row in rows
    ]
    among = f"in {len(result.names)} rows"
    record = {**_subject(found), "wrong": len(wrong), "mistakes": told}
    if not rows:
        return Picture(None, f"no mistake {among}: no picture is written", record)
    images, is_stretched = row_images(found, rows)
    count = f"the {most} surest of {len(wrong)}" if len(wrong) > most else f"all {len(wrong)}"
    summary = f"{count} mistakes {among}{', brightness stretched' if is_stretched else ''}"
    title = f"{short_path(found.checkpoint or found.meta)}\n{summary}"
    return Picture(_draw_images(images, told, title), summary, record)


def _draw_images(images: Pixels, told: Sequence[dict[str, Any]], title: str) -> Figure:
    num_rows = -(-len(images) // _COLUMNS)
    figure = new_figure(2.1 * _COLUMNS, 2.55 * num_rows + 0.6)
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, entry, pixels in zip(grid, told, images, strict=False):
        axes.imshow(pixels)
        label, wrong_class = (as_label(entry[key], _MOST_LETTERS) for key in ("label", "class"))
        axes.set_title(
            f"{as_label(entry['name'], 2 * _MOST_LETTERS)}\ntrue: {label}\n"
            f"predicted: {wrong_class} {float(entry['probability']):.4f}",
            fontsize=8,
        )
    figure.suptitle(title)
    return figure


def row_images(found: Classified, rows: Sequence[int]) -> tuple[Pixels, bool]:
    """Rows of the first input that holds images, float64 [N, height, width, 3] in [0, 1].

    Also whether they are stretched: the least and largest values of each are black and white, as
    those of the model's images are not known, or other values are within them. Raises ToolError
    where there is no such input.
    """
    refused = []
    for name, held in found.inputs.rows.items():
        first = held.take(np.array([0]))
        is_signed = name in found.model.inputs.values()
        sizes = (*first.shape[1:], *([1] if first.ndim == 3 else []))
        shape: Sequence[int] = (is_signed and found.model.image_shape) or sizes
        is_image = len(shape) == 3 and shape[2] in (1, 3) and math.prod(shape) == first.size
        if is_image and first.dtype.kind in "fiu":
            scale = found.model.input_scale if is_signed else None
            scale = 1.0 if first.dtype == np.uint8 else scale
            values = [held.take(np.array([row])).reshape(shape) for row in rows]
            images = np.nan_to_num(np.stack(values).astype(np.float64))
            return _as_pixels(images, _UINT8 * scale if scale else None)
        refused.append(f"{name} {format_shape(first.shape[1:])}")
    raise ToolError(
        f"{found.meta}: expected rows that are images, found {', '.join(refused) or 'none'}"
    )


def _as_pixels(images: Pixels, white: float | None) -> tuple[Pixels, bool]:
    """Images [N, height, width, 1 or 3] whose white has a value, or None where it is not known."""
    low, high = (find(images, axis=(1, 2, 3), keepdims=True) for find in (np.min, np.max))
    is_stretched = True
    if white is not None and low.min() >= 0 and high.max() <= white * (1 + _ROUNDING):
        low, high, is_stretched = np.zeros_like(low), np.full_like(high, white), False
    shown = np.clip((images - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    return np.broadcast_to(shown, (*shown.shape[:3], 3)), is_stretched


_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
_MAX_FILTERS = 256
_MAX_PLANES = 48  # Filters, and channels, where each channel is an image.
_MAX_WEIGHTS = 1 << 24
_AS_COLOUR = {1: "in grey", 3: "in colour"}  # Filters of so many channels; others, by channel.
_GAP = (0.80, 0.88, 0.95)  # Between two tiles: a light blue, which no grey is.
_NOT_FINITE = (0.835, 0.369, 0.0)  # In place of NaN and infinity: vermilion.
_SIDE = 6.5  # Inches, of the image.


class Kernel(NamedTuple):
    """A convolution's weights."""

    meta: str  # The file of the graph.
    name: str  # The tensor's, such as `conv1/w:0`.
    values: Array  # Real numbers [height, width, channels, filters].


def read_kernel(config: ModelConfig, tensor: str | None = None) -> Kernel:
    """Reads one kernel, by default the first that the prediction needs, and no other variable."""
    return with_model(config, functools.partial(_read, config, tensor))


def _read(config: ModelConfig, tensor: str | None, meta: MetaGraphFile, model: Model) -> Kernel:
    with config.limit.over("looking for a kernel"):
        name = meta.tensor_name(tensor) if tensor is not None else _first_kernel(meta, model)
        unfed = sub_graph(meta, [name]).unfed
    if unfed:
        raise ToolError(f"{meta.path}: {name} is no weights: it follows from {', '.join(unfed)}")
    with load_inference_graph(
        meta, [name], trust_graph=config.trust_graph, time_limit=config.limit
    ) as graph:
        values = as_numpy_dtype(graph.run()[0])
    if values.ndim != 4 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise ToolError(
            f"{meta.path}: expected a kernel, numbers [height, width, channels, filters], found "
            f"{graph.fetches[0]}; --tensor names another"
        )
    return Kernel(meta.path, name, values)


def _first_kernel(meta: MetaGraphFile, model: Model) -> str:
    """The first kernel that the prediction needs, by its variable where it is one."""
    outputs = [*model.predict, *model.outputs.values()] or find_candidates(meta).outputs[:1]
    needed, view = sub_graph(meta, outputs).names, View(meta.nodes)
    for name, node in meta.nodes.items():
        inputs = data_inputs(node)
        if name not in needed or node.op not in _CONVOLUTIONS or len(inputs) < 2:
            continue
        found = source(view, inputs[1])
        if found is not None and found.node.op == "ReadVariableOp":
            found = source(view, found.node.input[0])
        variable = found.node.name if found and found.node.op in VARIABLE_OPS else None
        tensor = f"{variable}:0" if variable else meta.find_tensor(inputs[1])
        if tensor is not None and not sub_graph(meta, [tensor]).unfed:
            return tensor
    raise ToolError(
        f"{meta.path}: found no convolution that its prediction needs (not looked for in "
        "functions); --tensor names a kernel [height, width, channels, filters]"
    )


def draw_filters(kernel: Kernel) -> Picture:
    """Draws each filter in grey or, with three channels, in colour; else each channel in grey."""
    shape = kernel.values.shape
    most = _MAX_FILTERS if shape[2] in _AS_COLOUR else _MAX_PLANES
    values = kernel.values[:, :, :_MAX_PLANES, :most]
    if values.size > _MAX_WEIGHTS:
        raise ToolError(f"filters of {shape[0]}x{shape[1]} weights are too large for a picture")
    image = mosaic(tiles_of(values))
    scale = _SIDE / max(image.shape)
    height, width = image.shape[0] * scale, image.shape[1] * scale
    figure = new_figure(max(width, 4.4) + 1, max(height, 1.2) + 1.2)
    axes = figure.subplots()
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    if shape[2] not in _AS_COLOUR:
        axes.set(xlabel="input channels, from 0", ylabel="filters, from 0")
    shown = _shown(values, shape)
    title = f"{short_path(kernel.meta)}: {as_label(kernel.name, 60)} {list(shape)}"
    axes.set_title(
        f"{title}\n{shown}\nblack: a filter's least weight, white: its largest", fontsize=10
    )
    told = {"meta": kernel.meta, "tensor": kernel.name, "shape": list(shape)}
    record = told | {"filters": values.shape[3]}
    return Picture(figure, f"{kernel.name} of {kernel.meta}, {shown}", record)


def tiles_of(kernel: Array) -> Pixels:
    """The filters of a kernel [height, width, channels, filters], each scaled, as images.

    Gives float64 [rows, columns, height, width, 3] in [0, 1]. A row is a filter and a column one of
    its channels, or, where a filter is one image, the rows are as long as makes a square; what is
    left of the last row has the colour of the gaps.
    """
    filters = _scaled(np.moveaxis(kernel, 3, 0))
    if kernel.shape[2] not in _AS_COLOUR:
        filters = np.moveaxis(filters, 3, 1)[..., np.newaxis]
    images = np.broadcast_to(filters, (*filters.shape[:-1], 3)).copy()
    images[np.isnan(images).any(axis=-1)] = _NOT_FINITE
    if kernel.shape[2] not in _AS_COLOUR:
        return images
    count, least = len(images), math.ceil(math.sqrt(len(images)))
    columns = next((n for n in range(least, 2 * least + 1) if count % n == 0), least)
    rows = -(-count // columns)
    tiles = np.full((rows * columns, *images.shape[1:]), _GAP)
    tiles[:count] = images
    return tiles.reshape(rows, columns, *images.shape[1:])


def _scaled(filters: Array) -> Pixels:
    """Each of filters [N, ...] from 0, its least, to 1: 0.5 if all are equal, NaN if not finite."""
    values = filters.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    axes = tuple(range(1, values.ndim))
    least = np.fmin.reduce(values, axis=axes, keepdims=True)
    span = np.fmax.reduce(values, axis=axes, keepdims=True) - least
    found = (values - least) / np.where(span > 0, span, 1)
    return np.where(span > 0, found, values * 0 + 0.5)  # NaN stays what it is.


def mosaic(tiles: Pixels) -> Pixels:
    """Tiles [rows, columns, height, width, 3] as one image [H, W, 3], with a pixel around each."""
    rows, columns, height, width, _ = tiles.shape
    image = np.full((rows, height + 1, columns, width + 1, 3), _GAP)
    image[:, 1:, :, 1:] = tiles.swapaxes(1, 2)
    joined = image.reshape(rows * (height + 1), columns * (width + 1), 3)
    return np.pad(joined, ((0, 1), (0, 1), (0, 0)), mode="wrap")  # The first gaps, as the last.


def _shown(values: Array, shape: Sequence[int]) -> str:
    """`32 filters of 3x3, in colour`, of what is shown of a kernel of a shape."""
    height, width, channels, filters = shape
    planes, shown = values.shape[2:]
    count = f"{shown} filters" if shown == filters else f"the first {shown} of {filters} filters"
    each = channels if planes == channels else f"{planes} of {channels}"
    kind = _AS_COLOUR.get(channels, f"each of its {each} channels in grey")
    bad = int(np.sum(~np.isfinite(values.astype(np.float64))))
    return f"{count} of {height}x{width}, {kind}" + (
        f"; {bad} weights not finite: red" if bad else ""
    )
