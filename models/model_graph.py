"""What a model hands to whoever trains, saves or describes it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf


class ModelGraph(NamedTuple):
    """The handles of one training graph.

    Attributes:
      graph: the graph that holds everything below.
      inputs: the placeholders that a batch is fed to, in the batch's order.
      training_feeds: what else is fed in a training step, such as a dropout's keep probability;
        their defaults are those of inference.
      loss: float32 [], the batch's loss before the step's update.
      accuracy: float32 [] in [0, 1], or None where the model has none.
      train_op: one update of the weights and of `global_step`.
      signature_inputs: argument name -> tensor, of the signature `serving_default`.
      signature_outputs: result name -> tensor, of the signature `serving_default`.
      learning_rate: float32 [], the present update's; None where it is the same for all.
    """

    graph: tf.Graph
    inputs: tuple[tf.Tensor, ...]
    training_feeds: Mapping[tf.Tensor, Any]
    loss: tf.Tensor
    accuracy: tf.Tensor | None
    train_op: tf.Operation
    signature_inputs: Mapping[str, tf.Tensor]
    signature_outputs: Mapping[str, tf.Tensor]
    learning_rate: tf.Tensor | None = None
