"""The dtype and shape of a tensor as its file declares them, where TensorFlow cannot infer them.

A graph may compute a tensor by operations that this TensorFlow does not have. Fed, it needs none
of them: its own node says enough.
"""

from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from checkpoints.loading.graph_view import attribute
from checkpoints.loading.meta_graph_file import MetaGraphFile

_MAX_OUTPUTS = 10_000  # Of a node; a hostile count would fill the memory.


def declared(meta: MetaGraphFile, name: str) -> tuple[tf.DType, tf.TensorShape] | None:
    """The dtype and the shape, perhaps unknown, of a tensor.

    Format: `tensorflow/core/framework/op_def.proto`; the file brings the definitions of the
    operations it uses. Its `_output_shapes` are what was inferred when it was written.

    Args:
      meta: the file.
      name: in full, of a node that exists.

    Returns:
      None where the file does not tell.
    """
    node_name, _, index = name.partition(":")
    node = meta.nodes[node_name]
    for definition in meta.proto.meta_info_def.stripped_op_list.op:
        if definition.name == node.op:
            dtypes = list(_dtypes(node, definition))
            if int(index) < len(dtypes):
                try:
                    return tf.as_dtype(dtypes[int(index)]).base_dtype, _shape(node, int(index))
                except (TypeError, ValueError):
                    return None
    return None


def _dtypes(node: NodeDef, definition: OpDef) -> Iterator[int]:
    """The number of the dtype of each output."""
    for output in definition.output_arg:
        if output.type_list_attr:
            yield from attribute(node, output.type_list_attr).list.type[:_MAX_OUTPUTS]
            continue
        dtype = attribute(node, output.type_attr).type if output.type_attr else output.type
        count = attribute(node, output.number_attr).i if output.number_attr else 1
        yield from [dtype] * min(count, _MAX_OUTPUTS)


def _shape(node: NodeDef, index: int) -> tf.TensorShape:
    shapes = attribute(node, "_output_shapes").list.shape
    return tf.TensorShape(shapes[index] if index < len(shapes) else None)
