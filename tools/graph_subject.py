"""The graph that is looked at, its layers, and how the parts of the look write lines for people."""

import posixpath
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import MetaGraphFile, format_shape
from metagraph.model import Candidates, Model, find_candidates
from prediction.chosen_model import listing
from tools.flat_graph import StaticGraph, static_graph

HINT = "--format=json has all"
_PARTITION = re.compile(r"/part_\d+$")  # Of a partitioned variable.


def shortened(lines: Sequence[str], most: int, indent: str = "  ") -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"{indent}... and {more} more ({HINT})"] if more > 0 else [])]


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = listed([f"{name} {count}" for name, count in ordered], most)
    return text + (f" ({HINT})" if len(ordered) > most else "")


def listed(values: Iterable[Any], most: int) -> str:
    """`a, b, c`; then how many more there are."""
    texts = [str(value) for value in values]
    more = len(texts) - most
    return (", ".join(texts[:most]) or "(none)") + (f" and {more} more" if more > 0 else "")


def tensor_text(record: Mapping[str, Any]) -> str:
    """`x:0  float32 [?, 4]`."""
    return f"{record['name']}  {kind_text(record)}"


def kind_text(record: Mapping[str, Any]) -> str:
    """`float32 [?, 4]`, of the keys `dtype` (null where not known) and `shape`."""
    if record["dtype"] is None:
        return "unknown here"
    return f"{record['dtype']} {format_shape(record['shape'])}"


def dtype_name(number: int) -> str:
    """`float32` of 1; `dtype 99` of a number that this TensorFlow has no name for."""
    try:
        return str(tf.as_dtype(number).name)
    except TypeError:
        return f"dtype {number}"


def shape_sizes(shape: TensorShapeProto) -> list[int | None] | None:
    """Sizes as JSON has them: null where one is not known, and for a shape without a rank."""
    if shape.unknown_rank:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


def layer_of(path: str, nodes: Container[str], depth: int | None = None) -> str:
    """The scope that a node belongs to; empty for the top.

    What TensorFlow puts into a scope named after a node, as `w/read` and `w/Assign`, belongs with
    that node. Of a depth, only so many outer scopes are kept.
    """
    scope = posixpath.dirname(_PARTITION.sub("", path))
    while scope and scope in nodes:
        scope = posixpath.dirname(scope)
    return scope if depth is None else "/".join(scope.split("/")[:depth])


@dataclass(frozen=True)
class Inference:
    """The part of a graph that predicts.

    Its outputs are the prediction, the likeliest where the file does not say. It is cut off at its
    feeds: the inputs of the signature, and what can be fed in place of a pipeline. No nodes are
    needed where the graph has no output.
    """

    outputs: tuple[str, ...]
    feeds: tuple[str, ...]
    needed: SubGraph | None

    @property
    def names(self) -> frozenset[str]:
        """The names of its nodes."""
        return frozenset() if self.needed is None else self.needed.names


@dataclass(frozen=True, eq=False)
class Subject:
    """A graph and how it is looked at; see `tools.inspect_graph.GraphInspection`."""

    meta: MetaGraphFile
    model: Model
    fetch: Sequence[str] = ()
    batch_size: int = 1
    depth: int | None = None

    @cached_property
    def contents(self) -> dict[str, Any]:
        """Inputs, outputs and variables as `prediction.chosen_model.listing` has them."""
        return listing(self.meta, self.model, None if self.fetch else self._candidates)

    @cached_property
    def inference(self) -> Inference:
        """The part that predicts.

        Raises:
          CheckpointError: there is no such tensor, or a node's input does not exist.
        """
        found = self._candidates
        outputs = tuple(dict.fromkeys(self._named or found.outputs[:1]))
        feeds = tuple(dict.fromkeys([*self.model.inputs.values(), *found.pipeline]))
        feeds = tuple(name for name in feeds if name not in outputs)
        needed = sub_graph(self.meta, outputs, feeds) if outputs else None
        return Inference(outputs, feeds, needed)

    @cached_property
    def static(self) -> StaticGraph:
        """The whole graph with its static shapes, for the batch size."""
        return static_graph(self.meta, self.inference.outputs, self.batch_size)

    @cached_property
    def _named(self) -> Sequence[str]:
        """The prediction as whoever asks names it, or else the file."""
        model = self.model
        asked = [self.meta.tensor_name(text, model.fetch_keys) for text in self.fetch]
        return asked or [*model.predict, *model.outputs.values()]

    @cached_property
    def _candidates(self) -> Candidates:
        return find_candidates(self.meta, [*self.model.inputs.values()], self._named)
