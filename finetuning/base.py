"""Imports the part of a model that is built on into the graph that trains."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.fed_tensors import free_scope, placeholder
from checkpoints.loading.graph_import import import_graph, tensor_of
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.tensor_info import format_shape
from checkpoints.loading.variable_values import RESOURCE_VARIABLE
from finetuning.base_plan import STEP, BasePlan
from finetuning.base_variables import adopt
from finetuning.control_flow import add_contexts
from finetuning.random_ops import make_stateless, random_nodes, stream_of
from finetuning.switches import Setting
from models import randomness

_SCOPE = "base"  # Of what is added; all of the part keeps its own names.
_INITIAL_STEP = -1  # Of what is drawn once, for an initial value.
_SHOWN = 3


class Base(NamedTuple):
    """What is built on.

    Attributes:
      images: the placeholder that images are fed to.
      features: what the head takes, [N, ...].
      variables: of the part, by name, but for the step.
      step: int [], updates done.
      training_feeds: what is fed in a training step beside the batch.
      updates: what runs with each step.
    """

    images: tf.Tensor
    features: tf.Tensor
    variables: Mapping[str, tf.Variable]
    step: tf.Variable
    training_feeds: Mapping[tf.Tensor, Any]
    updates: Sequence[tf.Operation]


def free_batch(plan: BasePlan) -> bool:
    """Whether the part takes any number of images at once, whatever its placeholder says."""
    if plan.rows.shape is None or plan.rows.shape[0] is None:
        return True
    try:
        with tf.Graph().as_default():
            features = import_base(plan, (None, *plan.rows.shape[1:]), 0.0, 0).features
    except CheckpointError:
        return False
    return features.shape.rank is not None and features.shape[0] is None


def import_base(plan: BasePlan, shape: Sequence[int | None], offset: float, seed: int) -> Base:
    """Imports the part into the default graph, under the file's names.

    Args:
      plan: what is imported.
      shape: of the images that are fed, the batch first; where the part takes them as rows of
        numbers, it is given them so.
      offset: added to them on their way in.
      seed: in [0, 2**32); what is drawn at random follows from it.

    Raises:
      CheckpointError: it cannot be imported into this TensorFlow.
    """
    graph, graph_def = tf.compat.v1.get_default_graph(), tf.compat.v1.GraphDef()
    graph_def.CopyFrom(plan.graph_def)
    _with_scalar_shapes(graph_def)
    scope = free_scope(plan.meta, _SCOPE)
    step = _make_step(plan, scope)
    images, stand_in = _images(plan, shape, offset, scope)
    settings = {setting.name: _setting(plan, setting, scope) for setting in plan.settings}
    mapped = {plan.rows.name: stand_in, **settings, f"{STEP}:0": _stand_in_of(step)}
    mapped = {name: tensor for name, tensor in mapped.items() if name in plan.needed.feeds}
    with tf.compat.v1.name_scope(f"{scope}/"):
        keys = _rewrite_random(plan, graph_def, seed, step)
    import_graph(plan.meta, graph_def, {**mapped, **keys})
    add_contexts(plan.meta)
    return Base(
        images=images,
        features=stand_in if plan.tensor == plan.rows.name else tensor_of(graph, plan.tensor),
        variables=dict(_adopted(plan, graph, scope)),
        step=step,
        training_feeds={settings[s.name]: s.training for s in plan.settings},
        updates=[graph.get_operation_by_name(node_of(name)) for name in plan.updates],
    )


def _with_scalar_shapes(graph_def: tf.compat.v1.GraphDef) -> None:
    """Makes variables of the oldest kind, whose scalars have no known shape, into the next one."""
    for node in graph_def.node:
        if node.op == "Variable":
            node.op = "VariableV2"


def _make_step(plan: BasePlan, scope: str) -> tf.Variable:
    """The run's step, of the kind that the part takes; the file may have names beside its own."""
    dtype = tf.int64 if plan.step is None else plan.step.dtype
    if plan.step is not None and plan.meta.nodes[STEP].op == RESOURCE_VARIABLE:
        made = tf.raw_ops.VarHandleOp(shape=[], dtype=dtype, shared_name=STEP, name=STEP)
    else:
        made = tf.raw_ops.VariableV2(shape=[], dtype=dtype, name=STEP)
    with tf.compat.v1.name_scope(f"{scope}/"):
        zero = tf.zeros([], dtype)
    step = adopt(made.op, zero, scope, trainable=False)
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.GLOBAL_STEP, step)
    return step


def _stand_in_of(variable: tf.Variable) -> tf.Tensor:
    """What an operation that takes a variable takes: its reference or its handle."""
    return variable.graph.get_tensor_by_name(variable.name)


def _images(
    plan: BasePlan, shape: Sequence[int | None], offset: float, scope: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """The placeholder for images, float32, and what the part takes of it."""
    rows = plan.rows
    is_row = rows.shape is not None and len(rows.shape) != len(shape)
    if not offset and not is_row and rows.dtype == tf.float32:
        images = placeholder(plan.meta, rows.name, rows.dtype, shape, scope)
        return images, images
    images = tf.compat.v1.placeholder(tf.float32, shape, name=free_scope(plan.meta, "pixels"))
    with tf.compat.v1.name_scope(f"{scope}/"):
        taken = tf.cast(images + offset, rows.dtype)
        if rows.shape is not None and is_row:
            taken = tf.reshape(taken, [-1, *rows.shape[1:]])
    return images, taken


def _setting(plan: BasePlan, setting: Setting, scope: str) -> tf.Tensor:
    """A placeholder of the setting's own name, which is free as its node is not imported."""
    with tf.compat.v1.name_scope(f"{scope}/"):
        value = tf.constant(setting.otherwise, setting.dtype)
    return placeholder(plan.meta, setting.name, value.dtype, value.shape, scope, default=value)


def _rewrite_random(
    plan: BasePlan, graph_def: tf.compat.v1.GraphDef, seed: int, step: tf.Variable
) -> dict[str, tf.Tensor]:
    """Makes random operations stateless, in place; returns their keys, by the names they have."""
    initial = plan.initial_nodes
    keys = {
        f"{node}/key": randomness.key(
            seed, stream_of(node), _INITIAL_STEP if node in initial else step
        )
        for node in random_nodes(graph_def)
    }
    left = make_stateless(graph_def, lambda node: f"{node}/key")
    if left:
        logging.warning(
            "%s draws anew whenever it runs: %s; an interrupted run will not end as an unbroken "
            "one, and predictions may differ",
            plan.meta.path,
            first_few(left, _SHOWN),
        )
    return {f"{name}:0": key for name, key in keys.items()}


def _adopted(plan: BasePlan, graph: tf.Graph, scope: str) -> Iterator[tuple[str, tf.Variable]]:
    """The part's variables.

    Raises:
      CheckpointError: the initial value of one does not fit it.
    """
    for name, variable in plan.variables.items():
        node = graph.get_operation_by_name(name)
        initial = tensor_of(graph, plan.initial[name]) if name in plan.initial else None
        if initial is not None and not (
            initial.dtype == variable.dtype and initial.shape.is_compatible_with(variable.shape)
        ):
            raise CheckpointError(
                f"{plan.meta.path} is damaged: {name} is {variable.dtype.name} "
                f"{format_shape(variable.shape)}, its initial value {initial.dtype.name} "
                f"{format_shape(initial.shape)}"
            )
        yield name, adopt(node, initial, scope, trainable=name in plan.trainable)
