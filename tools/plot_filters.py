"""The filters of a convolution as one image of tiles, out of any graph.

The kernel is whatever the prediction takes as its filter.
"""

import itertools
import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from errors import ToolError
from metagraph.casting import Array, as_numpy_dtype
from metagraph.graph import sub_graph
from metagraph.meta import MetaGraphFile, TensorInfo, format_shape, node_of
from metagraph.model import Model, find_candidates
from metagraph.session import describe_tensors, load_inference_graph
from metagraph.variables import VARIABLE_OPS
from prediction.request import ModelConfig
from tools.plot_runs import Picture, as_label, new_figure, short_path

_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
_PASSED_ON = frozenset({"Identity", "ReadVariableOp", "Enter"})
_MAX_NAMED = 10
_MAX_FILTERS = 256
_MAX_PLANES = 48  # Filters, and channels, where each channel is a tile.
_MAX_PIXELS = 1 << 24  # Of one tile for each filter.
_MAX_NUMBERS = 24  # At an edge.
_GAP = (0.80, 0.88, 0.95)  # Between two tiles: a light blue, which no grey is.
_NOT_FINITE = (0.835, 0.369, 0.0)  # In place of NaN and infinity: vermilion.
_SIDE = 6.5  # Inches, of the image.
Images = npt.NDArray[np.float64]


class Kernel(NamedTuple):
    """A convolution's weights, real numbers [height, width, channels, filters].

    With the file of the graph, and the tensor's name, such as `conv1/w:0`.
    """

    meta: str
    name: str
    values: Array


def read_kernel(
    config: ModelConfig, meta: MetaGraphFile, model: Model, tensor: str | None
) -> Kernel:
    """Reads one kernel, by default the first that the prediction needs, and no other variable.

    Raises:
      ToolError: there is none, or the tensor is no kernel.
      CheckpointError: there is no such tensor, or its value cannot be had.
    """
    with config.limit.over("looking for a kernel"):
        name = meta.tensor_name(tensor) if tensor is not None else _first_kernel(meta, model)
        (info,) = describe_tensors(meta, [name])
    if info.shape is not None and len(info.shape) != 4:
        raise _no_kernel(meta, info)
    unfed = sub_graph(meta, [name]).unfed
    if unfed:
        raise ToolError(f"{meta.path}: {name} is no weights: it follows from {', '.join(unfed)}")
    with load_inference_graph(
        meta, [name], trust_graph=config.trust_graph, time_limit=config.limit
    ) as graph:
        values = as_numpy_dtype(graph.run()[0])
    if values.ndim != 4 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise _no_kernel(meta, info)
    return Kernel(meta.path, name, values)


def _first_kernel(meta: MetaGraphFile, model: Model) -> str:
    """The first kernel, in the file's order, that the prediction needs."""
    outputs = [*model.predict, *model.outputs.values()]
    outputs = outputs or list(find_candidates(meta).outputs[:1])
    name = next(_kernels(meta, sub_graph(meta, outputs).names), None) if outputs else None
    if name is None:
        others = list(itertools.islice(_kernels(meta, meta.nodes), _MAX_NAMED))
        raise ToolError(
            f"{meta.path}: found no convolution that its prediction needs (not looked for in "
            f"functions); --tensor names a kernel [height, width, channels, filters]"
            + (f", such as {', '.join(others)}" if others else "")
        )
    return name


def _kernels(meta: MetaGraphFile, nodes: Collection[str]) -> Iterator[str]:
    """The weights of each convolution among some nodes, by their variables where they are these."""
    for name, node in meta.nodes.items():
        if name in nodes and node.op in _CONVOLUTIONS and len(node.input) > 1:
            tensor = _stored(meta, node.input[1])
            if tensor is not None and not sub_graph(meta, [tensor]).unfed:
                yield tensor


def _stored(meta: MetaGraphFile, text: str) -> str | None:
    """The variable that a convolution's input is read from; else the input itself."""
    tensor = meta.find_tensor(text)
    name, seen = node_of(text), set[str]()
    while name in meta.nodes and name not in seen:
        seen.add(name)
        node = meta.nodes[name]
        if node.op in VARIABLE_OPS:
            return f"{name}:0"
        if node.op not in _PASSED_ON or not node.input:
            break
        name = node_of(node.input[0])
    return tensor


def _no_kernel(meta: MetaGraphFile, info: TensorInfo) -> ToolError:
    return ToolError(
        f"{meta.path}: expected a kernel, numbers [height, width, channels, filters], found "
        f"{info.name} {info.dtype.name} {format_shape(info.shape)}; --tensor names another"
    )


class Tiles(NamedTuple):
    """Images of one size, in rows: float64 [N, height, width, 3], in [0, 1].

    A row is one filter and a column one of its channels (`of_channels`), or else each is a filter.
    """

    images: Images
    columns: int
    of_channels: bool

    @property
    def rows(self) -> int:
        """How many there are, the last maybe not full."""
        return -(-len(self.images) // self.columns)


def draw_filters(kernel: Kernel) -> Picture:
    """Draws each filter in grey or, of three channels, in colour; of others, each channel in grey.

    Raises:
      ToolError: a filter is too large for a picture.
    """
    tiles = tiles_of(kernel.values)
    image = mosaic(tiles)
    scale = _SIDE / max(image.shape)
    figure = new_figure(
        max(image.shape[1] * scale, 4.4) + 1, max(image.shape[0] * scale, 1.2) + 1.2
    )
    axes = figure.subplots()
    axes.imshow(image)
    height, width = tiles.images.shape[1:3]
    every = 1 if tiles.of_channels else tiles.columns
    for set_ticks, count, size, each in (
        (axes.set_yticks, tiles.rows, height, every),
        (axes.set_xticks, tiles.columns, width, 1),
    ):
        numbers = np.arange(0, count, -(-count // _MAX_NUMBERS))
        set_ticks((numbers + 0.5) * (size + 1), [str(number * each) for number in numbers])
    axes.set_xlabel("input channel" if tiles.of_channels else "filter, from the row's first on")
    axes.set_ylabel("filter" if tiles.of_channels else "first filter of the row")
    title = f"{short_path(kernel.meta)}: {as_label(kernel.name, 60)} {list(kernel.values.shape)}"
    shown = _shown(tiles, kernel.values)
    axes.set_title(
        f"{title}\n{shown}\nblack: a filter's least weight, white: its largest", fontsize=10
    )
    record = {
        "meta": kernel.meta,
        "tensor": kernel.name,
        "shape": list(kernel.values.shape),
        "filters": tiles.rows if tiles.of_channels else len(tiles.images),
    }
    return Picture(figure, f"{kernel.name} of {kernel.meta}, {shown}", record)


def tiles_of(kernel: Array) -> Tiles:
    """The filters of a kernel [height, width, channels, filters] as images.

    Each is scaled from its least weight to its largest; one of equal weights is grey.

    Raises:
      ToolError: a filter is too large for a picture.
    """
    height, width, channels, filters = kernel.shape
    of_channels = channels not in (1, 3)
    planes = min(channels, _MAX_PLANES) if of_channels else 1
    most = min(filters, _MAX_PLANES if of_channels else _MAX_FILTERS)
    most = min(most, _MAX_PIXELS // (height * width * planes))
    if not most:
        raise ToolError(f"a filter of {height}x{width} weights is too large for a picture")
    weights = scaled(np.moveaxis(kernel[:, :, : planes if of_channels else None, :most], 3, 0))
    if of_channels:
        weights = np.moveaxis(weights, 3, 1).reshape(-1, height, width, 1)
    images = np.broadcast_to(weights, (*weights.shape[:3], 3)).copy()
    images[~np.isfinite(images).all(axis=3)] = _NOT_FINITE
    least = math.ceil(math.sqrt(most))  # A nearly square grid, without a gap at its end.
    square = next((n for n in range(least, 2 * least + 1) if most % n == 0), least)
    return Tiles(images, planes if of_channels else square, of_channels)


def scaled(filters: Array) -> Images:
    """Each of some filters [N, ...] from 0, its least, to 1; NaN where it is not finite."""
    values = filters.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    axes = tuple(range(1, values.ndim))
    least = np.nanmin(values, axis=axes, initial=np.inf, keepdims=True)
    span = np.nanmax(values, axis=axes, initial=-np.inf, keepdims=True) - least
    with np.errstate(invalid="ignore"):
        found = (values - least) / np.where(span > 0, span, 1)
    return np.where(span > 0, found, values * 0 + 0.5)  # NaN stays what it is.


def mosaic(tiles: Tiles) -> Images:
    """All tiles as one image [H, W, 3], in rows, with a pixel around each."""
    count, height, width, _ = tiles.images.shape
    down, along = height + 1, width + 1
    whole = np.empty((tiles.rows * down + 1, tiles.columns * along + 1, 3))
    whole[:] = _GAP
    for index in range(count):
        row, column = divmod(index, tiles.columns)
        top, left = row * down + 1, column * along + 1
        whole[top : top + height, left : left + width] = tiles.images[index]
    return whole


def _shown(tiles: Tiles, kernel: Array) -> str:
    """`32 filters of 3x3 in colour`."""
    height, width, channels, filters = kernel.shape
    shown = tiles.rows if tiles.of_channels else len(tiles.images)
    count = f"{shown} filters" if shown == filters else f"the first {shown} of {filters} filters"
    kind = "in colour" if channels == 3 else "in grey"
    if tiles.of_channels:
        planes = channels if tiles.columns == channels else f"{tiles.columns} of {channels}"
        kind = f"each of its {planes} channels in grey"
    bad = int(np.sum(~np.isfinite(kernel.astype(np.float64))))
    return f"{count} of {height}x{width}, {kind}" + (
        f"; {bad} weights not finite: red" if bad else ""
    )
