"""The kernel of a convolution, out of any graph: whatever its prediction takes as its filter."""

import itertools
from collections.abc import Collection, Iterator
from typing import NamedTuple

from checkpoints.loading.inference_graph import describe_tensors, load_inference_graph
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.sub_graph import sub_graph
from checkpoints.loading.tensor_info import TensorInfo, format_shape
from checkpoints.loading.variable_values import VARIABLE_OPS
from prediction.candidates import find_candidates
from prediction.casting import Array, as_numpy_dtype
from prediction.config import ModelConfig
from prediction.model import Model
from tools.common.errors import ToolError

_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
_PASSED_ON = frozenset({"Identity", "ReadVariableOp", "Enter"})
_MAX_NAMED = 10


class Kernel(NamedTuple):
    """A convolution's weights.

    Attributes:
      meta: the file of the graph.
      name: of the tensor, such as `conv1/w:0`.
      values: real numbers [height, width, channels, filters].
    """

    meta: str
    name: str
    values: Array


def read_kernel(
    config: ModelConfig, meta: MetaGraphFile, model: Model, tensor: str | None
) -> Kernel:
    """Reads one kernel; nothing else of the checkpoint is read.

    Args:
      config: what the graph may do and take.
      meta: the graph.
      model: its description.
      tensor: as the user names it; None for the first that the prediction needs.

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
        raise ToolError(
            f"{meta.path}: found no convolution that its prediction needs (not looked for in "
            f"functions); --tensor names a kernel [height, width, channels, filters]"
            f"{_offered(meta)}"
        )
    return name


def _offered(meta: MetaGraphFile) -> str:
    """The kernels that there are elsewhere in the graph."""
    names = list(itertools.islice(_kernels(meta, meta.nodes), _MAX_NAMED))
    return f", such as {', '.join(names)}" if names else ""


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
