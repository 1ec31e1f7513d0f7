"""The graph that is looked at, what predicts in it, and how its parts are written as text.

Formats of attributes: `tensorflow/core/framework/{attr_value,tensor}.proto`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.tensor_pb2 import TensorProto

from checkpoints.dtypes import as_dtype
from errors import first_few
from metagraph.description import Model, constant, format_shape, json_value
from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import MetaGraphFile, shape_sizes
from metagraph.model import Candidates, find_candidates
from prediction.output import ALL_IN_JSON

_SHOWN_VALUES = 8  # Of a constant.


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

        Raises CheckpointError where there is no such tensor, or a node's input does not exist.
        """
        return sub_graph(self.meta, self.outputs, self.feeds)


def counted(counts: Mapping[str, int], most: int) -> str:
    """`Const 14, MatMul 2`, the most frequent first; then how many more kinds there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = listed([f"{name} {count}" for name, count in ordered], most)
    return text + (f" ({ALL_IN_JSON})" if len(ordered) > most else "")


def listed(values: Iterable[Any], most: int) -> str:
    """`a, b, c`; then how many more there are."""
    return first_few([str(value) for value in values], most) or "(none)"


def tensor_record(graph: Any | None, text: str) -> dict[str, Any]:
    """JSON values of `node` or `node:index`: `name`, `dtype` and `shape`, null where not known.

    The graph is a tf.Graph, where there is one.
    """
    name = text if ":" in text else f"{text}:0"
    try:
        tensor = graph.get_tensor_by_name(name) if graph is not None else None
    except (KeyError, ValueError):
        tensor = None
    if tensor is None:
        return {"name": name, "dtype": None, "shape": None}
    shape = shape_sizes(tensor.shape.as_proto())
    return {"name": name, "dtype": tensor.dtype.base_dtype.name, "shape": shape}


def attribute_text(value: AttrValue) -> str:
    """An attribute as text: `float32`, `[1, 2, 2, 1]`, `float32 [4] = 0.1, 0.2, 0.3, 0.4`."""
    kind = value.WhichOneof("value")
    if kind == "list":
        pairs = [(field.name, item) for field, items in value.list.ListFields() for item in items]
        return f"[{', '.join(_TEXTS.get(field, str)(item) for field, item in pairs)}]"
    return "?" if kind is None else _TEXTS.get(kind, str)(getattr(value, kind))


def dtype_name(number: int) -> str:
    """`float32` of 1; `dtype 99` of a number that this TensorFlow has no name for."""
    try:
        return as_dtype(number).name
    except TypeError:
        return f"dtype {number}"


def _tensor_text(tensor: TensorProto) -> str:
    """The dtype, the shape and the first values, flattened.

    Of equal values at its end a constant holds but one, which `constant` repeats: it is
    given a shape of a few, as what the file's own shape says may be any size.
    """
    kind = f"{dtype_name(tensor.dtype)} {format_shape(shape_sizes(tensor.tensor_shape))}"
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    count = min(_SHOWN_VALUES, math.prod(sizes))
    try:
        dtype = as_dtype(tensor.dtype)
        few = TensorProto(dtype=tensor.dtype)
        few.tensor_shape.dim.add().size = count
        few.tensor_content = tensor.tensor_content[: count * dtype.size]
        for field, values in tensor.ListFields():
            if field.name.endswith("_val"):
                width = 2 if dtype.is_complex else 1
                getattr(few, field.name).extend(values[: count * width])
        found = json_value(constant(few))
    except (KeyError, TypeError, ValueError):  # A dtype without values, or too few of them.
        return f"{kind}, which cannot be read"
    rest = ["..."] if math.prod(sizes) > count else []
    return f"{kind} = {', '.join([*(json.dumps(v, ensure_ascii=False) for v in found), *rest])}"


def _function_text(value: NameAttrList) -> str:
    texts = [f"{key}={attribute_text(value.attr[key])}" for key in sorted(value.attr)]
    return f"{value.name}({', '.join(texts)})" if texts else str(value.name)


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "s": lambda value: value.decode("utf-8", "backslashreplace"),
    "type": dtype_name,
    "shape": lambda value: format_shape(shape_sizes(value)),
    "tensor": _tensor_text,
    "func": _function_text,
    "placeholder": lambda value: f"as the caller's {value}",
}
