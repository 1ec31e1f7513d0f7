"""The static shapes of a whole graph, its functions written out, for a batch of a given size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.disarmed_graph import import_disarmed
from checkpoints.loading.graph_view import attribute
from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
)
from checkpoints.loading.sub_graph import sub_graph
from tools.graph_inspection.inlining import FlatGraph, flat_graph

Sizes = tuple[int | None, ...]

_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_SERVED = frozenset({"IteratorGetNext", "IteratorV2", "Iterator", "OneShotIterator"})


@dataclass(frozen=True, eq=False)
class StaticGraph:
    """A flat graph, imported and disarmed.

    Attributes:
      flat: its nodes.
      graph: the same in TensorFlow; None where that cannot import it.
      problem: why not, or why it is but a part of the graph; empty where all is well.
    """

    flat: FlatGraph
    graph: tf.Graph | None
    problem: str = ""

    @cached_property
    def paths(self) -> frozenset[str]:
        """What `Origin.path` the nodes have, for `layer_of`."""
        return frozenset(origin.path for origin in self.flat.origins.values())

    def tensor(self, text: str) -> tuple[tf.DType, Sizes | None] | None:
        """The dtype and the shape of `node` or `node:index`; None where it is not known."""
        if self.graph is None:
            return None
        try:
            tensor = self.graph.get_tensor_by_name(text if ":" in text else f"{text}:0")
        except (KeyError, ValueError):
            return None
        return tensor.dtype.base_dtype, sizes_of(tensor.shape)


def sizes_of(shape: tf.TensorShape) -> Sizes | None:
    """Sizes, None where one is not known; a damaged file may have one below -1."""
    if shape.rank is None:
        return None
    return tuple(s if s is not None and s >= 0 else None for s in shape.as_list())


def static_graph(
    meta: MetaGraphFile, outputs: Sequence[str], batch_size: int | None
) -> StaticGraph:
    """Imports as much of a graph as this TensorFlow can.

    That is the whole, or else what some outputs need. Inputs whose first size is not known get the
    batch size, where the graph allows.

    Args:
      meta: the file.
      outputs: full tensor names, of nodes that exist.
      batch_size: None to leave the sizes as they are.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    problem = ""
    whole = [f"{name}:0" for name in meta.nodes]
    for names in (whole, outputs) if outputs else (whole,):
        graph_def = sub_graph(meta, names).graph_def
        for size, inline in _attempts(graph_def, batch_size):
            try:
                flat = flat_graph(graph_def, inline)
                if size is not None:
                    _set_batch_size(flat.graph_def, size)
                return StaticGraph(flat, import_disarmed(meta, flat.graph_def), problem)
            except CheckpointError as error:
                problem = problem or str(error)
    return StaticGraph(flat_graph(graph_def, inline=False), None, problem)


def _attempts(graph_def: GraphDef, batch_size: int | None) -> list[tuple[int | None, bool]]:
    """The ways to import it, the best first: a batch size, and whether calls are written out."""
    sizes = [None] if batch_size is None else [batch_size, None]
    ways = [True, False] if graph_def.library.function else [True]
    return [(size, way) for way in ways for size in sizes]


def _set_batch_size(graph_def: GraphDef, size: int) -> None:
    """Gives what is fed, or comes out of an iterator, a first size where it is not known."""
    for node in graph_def.node:
        if node.op in _INPUTS:
            shapes = [attribute(node, "shape").shape, *attribute(node, "_output_shapes").list.shape]
        elif node.op in _SERVED:
            shapes = list(attribute(node, "output_shapes").list.shape)
        else:
            continue
        for shape in shapes:
            if shape.dim and shape.dim[0].size == -1:
                shape.dim[0].size = size
