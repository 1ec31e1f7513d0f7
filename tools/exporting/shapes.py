"""Shapes that the user gives to placeholders of a graph that leaves them open."""

from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import PLACEHOLDERS, MetaGraphFile, node_of
from checkpoints.loading.tensor_info import format_shape
from prediction.model import Model
from tools.common.errors import ToolError

Shape = tuple[int | None, ...]


def parse_shape(text: str) -> tuple[str, Shape]:
    """A value of --shape, `x=?,3`, of which `x=` is a scalar: the name and the sizes."""
    name, _, sizes = text.rpartition("=")
    parts = sizes.split(",") if sizes else []
    return name, tuple(None if part == "?" else int(part) for part in parts)


def with_shapes(meta: MetaGraphFile, shapes: Mapping[str, Shape], model: Model) -> MetaGraphFile:
    """The same file with shapes for placeholders; the very same where none is given.

    Args:
      meta: the file.
      shapes: by tensor, or key of the signature.
      model: its description.

    Raises:
      CheckpointError: there is no such tensor.
      ToolError: a tensor is no placeholder, or has another shape already.
    """
    if not shapes:
        return meta
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    nodes = {node.name: node for node in proto.graph_def.node}
    for name, shape in _checked(meta, model, shapes).items():
        attributes = nodes[node_of(name)].attr
        attributes["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
        attributes.pop("_output_shapes", None)  # The graphs of old producers have it here.
    return MetaGraphFile(meta.path, meta.prefix, proto)


def _checked(meta: MetaGraphFile, model: Model, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes by full tensor name."""
    found = {meta.tensor_name(text, model.feed_keys): shape for text, shape in shapes.items()}
    for info in describe_tensors(meta, [*found]):
        if meta.nodes[node_of(info.name)].op not in PLACEHOLDERS:
            raise ToolError(f"--shape: {info.name} is no placeholder, and has the shape it has")
        if not tf.TensorShape(found[info.name]).is_compatible_with(tf.TensorShape(info.shape)):
            raise ToolError(
                f"--shape: {info.name} is {format_shape(info.shape)}, which "
                f"{format_shape(found[info.name])} does not go with"
            )
    return found
