"""The update: the head, the parts of the base that are unfrozen, and what follows their input."""

from collections.abc import Sequence

import tensorflow as tf

from finetuning.control_flow import OLD_CONTROL_FLOW
from training.errors import TrainingError


def train_op(
    loss: tf.Tensor,
    head: Sequence[tf.Variable],
    unfrozen: Sequence[tf.Variable],
    updates: Sequence[tf.Operation],
    step: tf.Variable,
    rates: tuple[float, float],
) -> tf.Operation:
    """One step of Adam on the head, one on the rest, then `step` counted up.

    Args:
      loss: float [].
      head: the new variables.
      unfrozen: those of the base that are trained.
      updates: what else runs with each step.
      step: integer [].
      rates: of the head, of the rest.

    Raises:
      TrainingError: an operation on the way has no gradient.
    """
    gradients = _gradients(loss, [*head, *unfrozen])
    before = list(updates)
    if unfrozen:
        pairs = list(zip(gradients[len(head) :], unfrozen, strict=True))
        optimizer = tf.compat.v1.train.AdamOptimizer(rates[1], name="Adam")
        before.append(optimizer.apply_gradients(pairs, name="train_unfrozen"))
    with tf.control_dependencies(before):
        optimizer = tf.compat.v1.train.AdamOptimizer(rates[0], name="Adam")
        pairs = list(zip(gradients[: len(head)], head, strict=True))
        return optimizer.apply_gradients(pairs, global_step=step, name="train")


def _gradients(loss: tf.Tensor, trained: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The gradient by each of the variables.

    They are all computed before any variable changes: some of them follow from its value.
    """
    try:
        found = tf.compat.v1.gradients(loss, list(trained), gate_gradients=True)
    except LookupError as error:  # TensorFlow's message names the operation and its type.
        raise TrainingError(
            f"--train_scopes: an operation between them and the loss has no gradient: {error}; "
            "choose scopes behind it"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        if not any(op.type in OLD_CONTROL_FLOW for op in loss.graph.get_operations()):
            raise
        raise TrainingError(
            "--train_scopes: between them and the loss is a conditional or a loop of TensorFlow 1, "
            "of which the model's file does not tell what a gradient needs; choose scopes behind it"
        ) from error
    missing = [v.op.name for v, gradient in zip(trained, found, strict=True) if gradient is None]
    if missing:
        raise TrainingError(
            f"--train_scopes: no gradient reaches {', '.join(missing)}, as an operation between "
            "and the loss passes none on"
        )
    return [tf.convert_to_tensor(gradient) for gradient in found]
