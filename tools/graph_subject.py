"""The graph that is looked at, and what several parts of the look need of it.

Attributes of nodes are JSON values and text, name scopes are layers, and lines are for people.
"""

import json
import math
import posixpath
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto

from metagraph.casting import json_value
from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import MetaGraphFile, format_shape
from metagraph.model import Candidates, Model, find_candidates
from prediction.chosen_model import listing
from tools.flat_graph import StaticGraph, static_graph

HINT = "--format=json has all"


def shortened(lines: Sequence[str], most: int, indent: str = "  ") -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"{indent}... and {more} more ({HINT})"] if more > 0 else [])]


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = len(ordered) - most
    shown = ", ".join(f"{name} {count}" for name, count in ordered[:most])
    return shown + (f" and {more} more ({HINT})" if more > 0 else "") if shown else "(none)"


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


# Attributes of nodes as JSON values and as text; of a constant, its first values.
#
# Formats: `tensorflow/core/framework/attr_value.proto`, `tensorflow/core/framework/tensor.proto`.

SHOWN_VALUES = 8  # Of a constant.
_LONGEST = 2000  # Characters of an attribute as text.


def attribute_value(value: AttrValue) -> Any:
    """An attribute as a JSON value.

    A dtype is its name, a shape a list of sizes (null where not known; null for no rank), a tensor
    an object of `dtype`, `shape` and `values` (the first of them, as they are in memory; null where
    they cannot be read), a function one of `function` and `attributes`, a value left to the caller
    one of `placeholder`.
    """
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "placeholder":
        return {"placeholder": value.placeholder}
    if kind == "list":
        return [_plain(f.name, item) for f, items in value.list.ListFields() for item in items]
    return _plain(kind, getattr(value, kind))


def _plain(kind: str, value: Any) -> Any:
    """One value of the field `kind` of an AttrValue."""
    return _PLAIN[kind](value) if kind in _PLAIN else value


def _text_of(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _function(value: NameAttrList) -> dict[str, Any]:
    attributes = {key: attribute_value(value.attr[key]) for key in sorted(value.attr)}
    return {"function": value.name, "attributes": attributes}


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


def tensor_value(tensor: TensorProto) -> dict[str, Any]:
    """A constant as `attribute_value` has it; what its shape says takes no memory."""
    shape = shape_sizes(tensor.tensor_shape)
    return {"dtype": dtype_name(tensor.dtype), "shape": shape, "values": _first_values(tensor)}


def _first_values(tensor: TensorProto) -> list[Any] | None:
    """The first values, flattened; None where they cannot be read.

    Of equal values at its end a constant holds but one, which `tf.make_ndarray` repeats.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        return None
    count = min(SHOWN_VALUES, math.prod(sizes))
    try:
        dtype = tf.as_dtype(tensor.dtype)
        few = TensorProto(dtype=tensor.dtype)
        few.tensor_shape.dim.add().size = count
        few.tensor_content = tensor.tensor_content[: count * dtype.size]
        for field, values in tensor.ListFields():
            if field.name.endswith("_val"):
                width = 2 if dtype.is_complex else 1
                getattr(few, field.name).extend(values[: count * width])
        found: list[Any] = json_value(tf.make_ndarray(few))
        return found
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few.
        return None


_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "s": _text_of,
    "f": _number,
    "type": dtype_name,
    "shape": shape_sizes,
    "tensor": tensor_value,
    "func": _function,
}


def attribute_text(value: Any) -> str:
    """An attribute's JSON value for people: `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, ...`."""
    text = _text(value)
    more = len(text) - _LONGEST
    return f"{text[:_LONGEST]}... ({more} characters more)" if more > 0 else text


def _text(value: Any) -> str:
    if isinstance(value, dict) and "values" in value:
        return _tensor_text(value)
    if isinstance(value, dict) and "function" in value:
        attributes = ", ".join(f"{k}={_text(v)}" for k, v in value["attributes"].items())
        return f"{value['function']}({attributes})" if attributes else str(value["function"])
    if isinstance(value, dict):
        return f"as the caller's {value['placeholder']}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None:  # A size or a shape that is not known.
        return "?"
    return value if isinstance(value, str) else json.dumps(value)


def _tensor_text(value: dict[str, Any]) -> str:
    kind = f"{value['dtype']} {format_shape(value['shape'])}"
    if value["values"] is None:
        return f"{kind}, which cannot be read"
    size = math.prod(value["shape"])
    rest = ", ..." if size > len(value["values"]) else ""
    return f"{kind} = {', '.join(json.dumps(v, ensure_ascii=False) for v in value['values'])}{rest}"


# The layers of a graph: its name scopes.

_PART = re.compile(r"/part_\d+$")  # Of a partitioned variable.


def layer_of(path: str, nodes: Container[str], depth: int | None = None) -> str:
    """The scope that a node belongs to; empty for the top.

    What TensorFlow puts into a scope named after a node, as `w/read` and `w/Assign`, belongs with
    that node.

    Args:
      path: of the node.
      nodes: the names of the graph's nodes.
      depth: at most so many scopes, the outer ones; None for all.
    """
    scope = posixpath.dirname(_PART.sub("", path))
    while scope and scope in nodes:
        scope = posixpath.dirname(scope)
    return scope if depth is None else "/".join(scope.split("/")[:depth])


# The graph that is looked at, and what several parts of the look need of it.


@dataclass(frozen=True)
class Inference:
    """The part of a graph that predicts.

    Attributes:
      outputs: the tensors that are the prediction, the likeliest where the file does not say.
      feeds: the tensors that it is cut off at: the inputs of the signature, and what can be fed in
        place of a pipeline.
      needed: its nodes; None where the graph has no output.
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
    """A graph and how it is looked at.

    Attributes:
      meta: the file.
      model: what it says of its model.
      fetch: the outputs that are meant; empty for the file's own.
      batch_size: rows, for the sizes that depend on them.
      depth: how many name scopes make a layer; None for all.
    """

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
