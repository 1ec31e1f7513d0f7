"""The graph that is trained: a part of a model, and a new head on it.

Tensor names of what is new: `y_:0` (labels), `head/w:0`, `head/b:0`, `head/add:0` (logits),
`head/probabilities:0`, `head/classes:0`, `loss:0`, `acc:0`; the collection `predict` holds the
logits. A name that the part itself has gets a number: `head_1`, `y__1`. All of the part keeps its
names.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from checkpoints.loading.fed_tensors import free_among
from checkpoints.loading.tensor_info import format_shape
from finetuning.base import Base, import_base
from finetuning.base_plan import BasePlan
from finetuning.training import train_op
from models import classification, head
from models.model_graph import ModelGraph
from training.errors import TrainingError

_SCOPE = "head"


class HeadRequest(NamedTuple):
    """What is built on a base.

    Attributes:
      kind: `models.head.DENSE` or `CONV`.
      num_classes: at least 2.
      learning_rate: of the head, above 0.
      finetune_learning_rate: of what is unfrozen of the base, above 0.
    """

    kind: str
    num_classes: int
    learning_rate: float
    finetune_learning_rate: float


def build(
    plan: BasePlan,
    request: HeadRequest,
    shape: Sequence[int | None],
    *,
    input_offset: float,
    seed: int,
) -> ModelGraph:
    """Builds the training graph.

    Args:
      plan: the part that is built on.
      request: what is built on it.
      shape: of the images, [N, ...]; N None for any number.
      input_offset: added to the images on their way in.
      seed: in [0, 2**32); initial weights and random numbers follow from it.

    Raises:
      CheckpointError: the part cannot be imported into this TensorFlow.
      TrainingError: the head does not fit the features, or an operation has no gradient.
    """
    graph = tf.Graph()
    with graph.as_default():
        base = import_base(plan, shape, input_offset, seed)
        features = _features(plan, base, request.kind)
        labels = tf.compat.v1.placeholder(tf.int64, [shape[0]], name="y_")
        with tf.compat.v1.variable_scope(free_among(plan.needed.names, _SCOPE)):
            new = head.build(request.kind, features, request.num_classes, seed)
        loss = classification.cross_entropy(new.logits, labels)
        _collect(new, base)
        return ModelGraph(
            graph=graph,
            inputs=(base.images, labels),
            training_feeds=base.training_feeds,
            loss=loss,
            accuracy=classification.accuracy(new.classes, labels),
            train_op=_train_op(plan, request, base, new, loss),
            signature_inputs={"x": base.images},
            signature_outputs=new.outputs,
        )


def _train_op(
    plan: BasePlan, request: HeadRequest, base: Base, new: head.Head, loss: tf.Tensor
) -> tf.Operation:
    unfrozen = [base.variables[name] for name in plan.unfrozen]
    rates = (request.learning_rate, request.finetune_learning_rate)
    return train_op(loss, new.variables, unfrozen, base.updates, base.step, rates)


def _collect(new: head.Head, base: Base) -> None:
    """Adds what predict.py, and whoever fine-tunes the result, look for in the collections."""
    tf.compat.v1.add_to_collection("predict", new.logits)
    for operation in base.updates:
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.UPDATE_OPS, operation)


def _features(plan: BasePlan, base: Base, kind: str) -> tf.Tensor:
    """What the head takes, float32; no gradient goes beyond it where all of the base is frozen.

    Raises:
      TrainingError: it is no array of numbers with a row for each image and sizes that are known.
    """
    found = base.features
    kind_found = f"{found.dtype.base_dtype.name} {format_shape(found.shape)}"
    what = f"{plan.tensor} of {plan.meta.path} is {kind_found}"
    if not found.dtype.is_floating or found.shape.rank in (None, 0):
        raise TrainingError(f"{what}; a head takes floats with a row for each image")
    known = found.shape[-1:] if kind == head.CONV else found.shape[1:]
    if kind == head.CONV and found.shape.rank != 4:
        raise TrainingError(f"{what}; --head=conv takes [N, H, W, C], --head=dense any other")
    if not known.is_fully_defined():
        hint = "" if kind == head.CONV or found.shape.rank != 4 else "; --head=conv may do"
        raise TrainingError(f"{what}; the head's weights need its sizes{hint}")
    features = tf.cast(found, tf.float32)
    return features if plan.unfrozen else tf.stop_gradient(features)
