"""What a model that is built on is given in training beside its images, and in prediction.

What its placeholders decide is found by `prediction.switches`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from checkpoints.loading.sub_graph import SubGraph
from checkpoints.loading.tensor_info import TensorInfo
from prediction.switches import Role, RoleFinder, off_value
from training.errors import TrainingError

_KEPT = 0.5  # In training, of the units of a dropout whose graph does not say another share.


class Setting(NamedTuple):
    """A value that the graph is given in training, and the one it has by default from then on.

    Attributes:
      name: of the tensor, in full.
      dtype: a tf.DType.
      role: what it decides.
      training: its value in a training step.
      otherwise: its value in evaluation and prediction.
    """

    name: str
    dtype: tf.DType
    role: Role
    training: Any
    otherwise: Any

    def __str__(self) -> str:
        """As in the log: `keep_prob:0 (the share that a dropout keeps) 0.5, otherwise 1.0`."""
        training, otherwise = np.asarray(self.training), np.asarray(self.otherwise)
        return (
            f"{self.name} ({self.role.value}) {training.tolist()}, otherwise {otherwise.tolist()}"
        )


def find_settings(
    needed: SubGraph, rows: str, given: Mapping[str, str], *, switched_on: bool
) -> list[Setting]:
    """The settings among the placeholders of a sub-graph.

    Args:
      needed: what the features are computed from.
      rows: the tensor that the images go to.
      given: tensor name, as the user wrote it -> the text of its value in training.
      switched_on: whether switches say in training that it is training.

    Raises:
      TrainingError: a placeholder is none of these and has no value, a value that is given does
        not fit, or there is no such placeholder.
    """
    meta = needed.meta
    names = {meta.tensor_name(text): text for text in given}
    found, finder = [], RoleFinder(needed)
    for info in _placeholders(needed, rows):
        role = finder.role(info)
        value = given[names[info.name]] if info.name in names else None
        if role is not None:
            found.append(_known(meta, info, role, value, switched_on))
        elif value is not None:
            parsed = _parsed(info, value)
            found.append(Setting(info.name, info.dtype, Role.OTHER, parsed, parsed))
        elif meta.nodes[node_of(info.name)].op in PLACEHOLDERS:
            raise TrainingError(
                f"{meta.path} takes {info} beside its images: give its value with "
                f"--train_feed={node_of(info.name)}=..."
            )
    _check_taken(names, [setting.name for setting in found], meta.path)
    return found


def _check_taken(names: Mapping[str, str], taken: Sequence[str], path: str) -> None:
    for name, text in names.items():
        if name not in taken:
            known = f"it has {', '.join(taken)}" if taken else "there is none"
            raise TrainingError(
                f"--train_feed={text}: the part of {path} that is taken has no such setting; "
                f"{known}"
            )


def _placeholders(needed: SubGraph, rows: str) -> Iterator[TensorInfo]:
    """The placeholders of a sub-graph, but for `rows`."""
    nodes = needed.meta.nodes
    names = [
        f"{name}:0"
        for name in nodes
        if name in needed.names
        and nodes[name].op in PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
        and f"{name}:0" != rows
    ]
    yield from describe_tensors(needed.meta, names) if names else ()


def _known(
    meta: MetaGraphFile, info: TensorInfo, role: Role, text: str | None, switched_on: bool
) -> Setting:
    """The setting of a known role; a value that is given goes before all."""
    otherwise = off_value(info.name, role)
    if role is Role.SWITCH:
        training: Any = switched_on != otherwise
    else:
        default = _default(meta, info.name)
        training = default if default is not None and 0 < default < 1 else _KEPT
    if text is not None:
        training = _parsed(info, text)
        kept = training if role is Role.KEEP else 1.0 - training
        if role is not Role.SWITCH and not 0 < kept <= 1:
            raise TrainingError(
                f"--train_feed={node_of(info.name)}={text}: it is {role.value}; expected one from "
                "0 to 1 that leaves something"
            )
    return Setting(info.name, info.dtype, role, training, otherwise)


def _default(meta: MetaGraphFile, name: str) -> float | None:
    """The constant that a placeholder has by default."""
    node = meta.nodes[node_of(name)]
    inputs = data_inputs(node)
    source = meta.nodes.get(node_of(inputs[0])) if inputs else None
    if source is None or source.op != "Const":
        return None
    value = tf.make_ndarray(attribute(source, "value").tensor)
    return float(value) if value.size == 1 and value.dtype.kind == "f" else None


def _parsed(info: TensorInfo, text: str) -> Any:
    """The value of --train_feed, of the placeholder's dtype and shape."""
    try:
        found = json.loads(text.lower())
        with np.errstate(over="raise"):
            value = np.asarray(found, info.dtype.as_numpy_dtype)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise TrainingError(
            f"--train_feed={node_of(info.name)}={text}: expected {info.dtype.name}, such as 0.5 "
            "or true"
        ) from error
    fits = info.shape is None or tf.TensorShape(info.shape).is_compatible_with(value.shape)
    if not fits or isinstance(found, bool) != (info.dtype == tf.bool):
        raise TrainingError(f"--train_feed={node_of(info.name)}={text} does not fit {info}")
    return value
