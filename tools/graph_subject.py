"""The graph that is looked at: what predicts in it, its layers, the static shapes of its tensors.

Also how the parts of the look write lines for people.
"""

import posixpath
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from errors import CheckpointError, first_few
from metagraph.graph import SubGraph, attribute_of, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile, format_shape
from metagraph.model import Candidates, Model, find_candidates

_HINT = "--format=json has all"
_ITERATORS = frozenset({"IteratorGetNext", "IteratorV2", "Iterator", "OneShotIterator"})
_SOURCES = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT | _ITERATORS
_SHAPES = ("shape", "_output_shapes", "output_shapes")  # Their attributes.
_PARTITION = re.compile(r"/part_\d+$")  # Of a partitioned variable.


def shortened(lines: Sequence[str], most: int, indent: str = "  ") -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"{indent}... and {more} more ({_HINT})"] if more > 0 else [])]


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = listed([f"{name} {count}" for name, count in ordered], most)
    return text + (f" ({_HINT})" if len(ordered) > most else "")


def listed(values: Iterable[Any], most: int) -> str:
    """`a, b, c`; then how many more there are."""
    return first_few([str(value) for value in values], most) or "(none)"


def tensor_text(record: Mapping[str, Any]) -> str:
    """`x:0  float32 [?, 4]`."""
    return f"{record['name']}  {kind_text(record)}"


def kind_text(record: Mapping[str, Any]) -> str:
    """`float32 [?, 4]`, of the keys `dtype` (null where not known) and `shape`."""
    if record["dtype"] is None:
        return "unknown here"
    return f"{record['dtype']} {format_shape(record['shape'])}"


def layer_of(path: str, nodes: Container[str], depth: int | None = None) -> str:
    """The scope that a node belongs to; empty for the top.

    What TensorFlow puts into a scope named after a node, as `w/read` and `w/Assign`, belongs with
    that node. Of a depth, only so many outer scopes are kept.
    """
    scope = posixpath.dirname(_PARTITION.sub("", path))
    while scope and scope in nodes:
        scope = posixpath.dirname(scope)
    return scope if depth is None else "/".join(scope.split("/")[:depth])


def tensor_record(graph: tf.Graph | None, text: str) -> dict[str, Any]:
    """JSON values of `node` or `node:index`: `name`, `dtype` and `shape`, null where not known."""
    name = text if ":" in text else f"{text}:0"
    try:
        tensor = graph.get_tensor_by_name(name) if graph is not None else None
    except (KeyError, ValueError):
        tensor = None
    if tensor is None:
        return {"name": name, "dtype": None, "shape": None}
    sizes = None if tensor.shape.rank is None else tensor.shape.as_list()
    # A damaged file may have a size below -1.
    shape = sizes and [size if (size or 0) >= 0 else None for size in sizes]
    return {"name": name, "dtype": tensor.dtype.base_dtype.name, "shape": shape}


def static_graph(
    meta: MetaGraphFile, outputs: Sequence[str], batch_size: int | None
) -> tuple[tf.Graph | None, str]:
    """Imports as much of a graph as this TensorFlow can: the whole, or what some outputs need.

    Inputs whose first size is not known get the batch size, where there is one and the graph
    allows.

    Returns:
      The graph, disarmed, None where nothing can be imported; and why it is not the whole.

    Raises:
      CheckpointError: a node's input does not exist.
    """
    problem = ""
    for names in ([f"{name}:0" for name in meta.nodes], outputs):
        for size in dict.fromkeys([batch_size, None]):
            graph_def = sub_graph(meta, names).graph_def
            if size is not None:
                _set_batch_size(graph_def, size)
            try:
                return import_disarmed(meta, graph_def), problem
            except CheckpointError as error:
                problem = problem or str(error)
    return None, problem


def _set_batch_size(graph_def: GraphDef, size: int) -> None:
    """Gives what is fed, or comes out of an iterator, a first size where it is not known."""
    for node in graph_def.node:
        for key in _SHAPES if node.op in _SOURCES else ():
            value = attribute_of(node, key)
            for shape in (value.shape, *value.list.shape):
                if shape.dim and shape.dim[0].size == -1:
                    shape.dim[0].size = size


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph and how it is looked at; see `tools.inspect_graph.GraphInspection`."""

    meta: MetaGraphFile
    model: Model
    fetch: Sequence[str] = ()
    batch_size: int = 1
    depth: int | None = None

    @cached_property
    def _named(self) -> Sequence[str]:
        """The prediction as whoever asks names it, or else the file."""
        model = self.model
        asked = [self.meta.tensor_name(text, model.fetch_keys) for text in self.fetch]
        return asked or [*model.predict, *model.outputs.values()]

    @cached_property
    def candidates(self) -> Candidates:
        """What could be fed for the prediction, or fetched as one."""
        return find_candidates(self.meta, [*self.model.inputs.values()], self._named)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The prediction; the likeliest output where neither who asks nor the file says it."""
        return tuple(dict.fromkeys(self._named or self.candidates.outputs[:1]))

    @cached_property
    def feeds(self) -> tuple[str, ...]:
        """The inputs of the signature, and what can be fed in place of a pipeline."""
        feeds = dict.fromkeys([*self.model.inputs.values(), *self.candidates.pipeline])
        return tuple(name for name in feeds if name not in self.outputs)

    @cached_property
    def needed(self) -> SubGraph:
        """What predicts, cut off at the feeds; empty where the graph has no output.

        Raises:
          CheckpointError: there is no such tensor, or a node's input does not exist.
        """
        return sub_graph(self.meta, self.outputs, self.feeds)
