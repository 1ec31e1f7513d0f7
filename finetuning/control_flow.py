"""Conditionals and loops as TensorFlow 1 made them: what a gradient through them needs.

They are no functions but operations (Switch, Merge, Enter, Exit, NextIteration) among all others.
Which of those make up a conditional or a loop stands in two collections of the meta graph, and
nowhere else; without, no gradient passes a loop, nor a variable that is read in a branch.

Format: `tensorflow/core/protobuf/control_flow.proto`.
"""

from collections.abc import Iterator
from typing import TypeAlias

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.control_flow_pb2 import (
    CondContextDef,
    ControlFlowContextDef,
    WhileContextDef,
)
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.sub_graph import SubGraph

OLD_CONTROL_FLOW = frozenset(
    {"Enter", "Exit", "Merge", "NextIteration", "RefEnter", "RefExit", "RefMerge"}
    | {"RefNextIteration", "RefSwitch", "Switch"}
)

_Context: TypeAlias = CondContextDef | WhileContextDef
_KINDS: dict[str, type[_Context]] = {
    "cond_context": CondContextDef,
    "while_context": WhileContextDef,
}
# With any saver at hand, TensorFlow does not make one for the variables that there are.
_NO_SAVER = SaverDef(filename_tensor_name="none:0", save_tensor_name="none:0", restore_op_name="n")


def pivots(meta: MetaGraphFile, part: SubGraph) -> list[str]:
    """What the conditionals and loops of a part hold on to, and the part itself may not need.

    These are the branch that is taken, and the condition of a loop.

    Args:
      meta: the file.
      part: of its graph.

    Returns:
      Names of tensors of the file.
    """
    found: dict[str, None] = {}
    for _, outermost in _contexts(meta):
        for context in _with_nested(outermost):
            if any(node_of(name) in part.names for name in context.values_def.values):
                found |= dict.fromkeys(_held_by(context))
    return [name for name in found if node_of(name) in meta.nodes]


def is_in_loop(meta: MetaGraphFile, tensor: str) -> bool:
    """Whether a tensor has a value in each round of a loop, and none outside of it."""
    for _, outermost in _contexts(meta):
        for context in _with_nested(outermost):
            values = context.values_def
            if not isinstance(context, WhileContextDef) or tensor not in values.values:
                continue
            if tensor not in values.external_values and tensor not in context.loop_exit_names:
                return True
    return False


def add_contexts(meta: MetaGraphFile) -> None:
    """Tells the default graph of the conditionals and loops of the nodes that it has of the file.

    What is damaged is left out with a warning: it may not be needed.
    """
    told, graph = MetaGraphDef(saver_def=_NO_SAVER), tf.compat.v1.get_default_graph()
    for key, context in _contexts(meta):
        if _cut_to(graph, context):
            content = context.SerializeToString()
            told.collection_def[key].bytes_list.value.append(content)
    if not told.collection_def:
        return
    try:
        tf.compat.v1.train.import_meta_graph(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logging.warning("%s: its conditionals and loops are damaged: %s", meta.path, error)


def _contexts(meta: MetaGraphFile) -> Iterator[tuple[str, _Context]]:
    """The outermost contexts of the file, each with the key of its collection."""
    for key, kind in _KINDS.items():
        for content in meta.collection(key).bytes_list.value:
            try:
                yield key, kind.FromString(content)
            except DecodeError:
                continue  # Anything may be in a collection.


def _inner(nested: ControlFlowContextDef) -> _Context | None:
    kind = nested.WhichOneof("ctxt")
    return getattr(nested, kind) if kind else None


def _with_nested(context: _Context) -> Iterator[_Context]:
    """A context and all in it."""
    yield context
    for nested in context.nested_contexts:
        inner = _inner(nested)
        if inner is not None:
            yield from _with_nested(inner)


def _held_by(context: _Context) -> list[str]:
    """The tensors without which TensorFlow does not take a context."""
    if isinstance(context, CondContextDef):
        return [context.pred_name, context.pivot_name]
    return [context.pivot_for_pred_name, context.pivot_for_body_name, context.pivot_name]


def _cut_to(graph: tf.Graph, context: _Context) -> bool:
    """Leaves out, in place, what a graph does not have; whether that left a context."""
    if not all(_has(graph, name) for name in _held_by(context)):
        return False
    values, outside = context.values_def, dict(context.values_def.external_values)
    kept = [name for name in values.values if _has(graph, outside.get(name, name))]
    values.ClearField("values")
    values.values.extend(kept)
    values.external_values.clear()
    values.external_values.update({name: outside[name] for name in kept if name in outside})
    if isinstance(context, WhileContextDef):
        for names in (context.loop_enter_names, context.loop_exit_names):
            names[:] = [name for name in names if _has(graph, name)]
    inner = [(nested, _inner(nested)) for nested in context.nested_contexts]
    left = [nested for nested, found in inner if found is not None and _cut_to(graph, found)]
    copies = [ControlFlowContextDef.FromString(nested.SerializeToString()) for nested in left]
    context.ClearField("nested_contexts")
    context.nested_contexts.extend(copies)
    return True


def _has(graph: tf.Graph, name: str) -> bool:
    try:
        graph.as_graph_element(name)
    except (KeyError, ValueError):
        return False
    return True
