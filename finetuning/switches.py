"""What tells a graph that it is being trained: switches, and how much of its units a dropout keeps.

Those of a stranger's graph are found by what they are, not by a list of names: a placeholder for
one bool is a switch; a placeholder for one number is a dropout's if random numbers are compared
with it, or if its name says so.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

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
from prediction.randomness import RANDOM_OPS
from training.errors import TrainingError

_KEPT = 0.5  # In training, of the units of a dropout whose graph does not say another share.

_INVERTED = re.compile(r"infer|eval|test|predict|freeze", re.IGNORECASE)
_TRAINING = re.compile(r"train", re.IGNORECASE)
_KEEP = re.compile(r"keep|retain", re.IGNORECASE)
_DROP = re.compile(r"drop", re.IGNORECASE)

_SAME = frozenset({"Cast", "Identity", "Reshape"})
_BELOW = frozenset({"Less", "LessEqual"})  # What is drawn below a share is kept:
_ABOVE = frozenset({"Greater", "GreaterEqual"})  # above a rate, likewise.
_SUMS = frozenset({"Add", "AddV2"})  # floor(keep + drawn), as TensorFlow 1 had it until 1.12.
_NEAR = 6  # Operations between random numbers and their comparison.
_STATELESS = "StatelessRandom"


class Role(Enum):
    """What a value decides."""

    SWITCH = "a switch"
    KEEP = "the share that a dropout keeps"
    RATE = "the share that a dropout drops"
    OTHER = "a value"


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
    found = []
    for info in _placeholders(needed, rows):
        role = _role(needed, info)
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
    if role is Role.SWITCH:
        off = bool(_INVERTED.search(info.name)) and not _TRAINING.search(info.name)
        training: Any = switched_on != off
        otherwise: Any = off
    else:
        otherwise = 1.0 if role is Role.KEEP else 0.0
        default = _default(meta, info.name)
        training = default if default is not None and 0 < default < 1 else _KEPT
    if text is not None:
        training = _parsed(info, text)
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
        value = np.asarray(found, info.dtype.as_numpy_dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise TrainingError(
            f"--train_feed={node_of(info.name)}={text}: expected {info.dtype.name}, such as 0.5 "
            "or true"
        ) from error
    fits = info.shape is None or tf.TensorShape(info.shape).is_compatible_with(value.shape)
    if not fits or isinstance(found, bool) != (info.dtype == tf.bool):
        raise TrainingError(f"--train_feed={node_of(info.name)}={text} does not fit {info}")
    return value


def _role(needed: SubGraph, info: TensorInfo) -> Role | None:
    """What a placeholder decides; None where it is not known."""
    if info.shape not in (None, ()):
        return None
    if info.dtype == tf.bool:
        return Role.SWITCH
    if not info.dtype.is_floating:
        return None
    keeps = _keeps(needed, node_of(info.name))
    if keeps is None:
        keeps = bool(_KEEP.search(info.name))
        if not keeps and not _DROP.search(info.name):
            return None
    return Role.KEEP if keeps else Role.RATE


def _keeps(needed: SubGraph, node: str) -> bool | None:
    """Whether a number is the share that a dropout keeps (or drops); None where it is neither.

    It is found by what random numbers are compared with: the number, or one minus it.
    """
    waiting, seen = [(node, True)], set[str]()
    while waiting:
        name, itself = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for taker in _takers(needed, name):
            kept = _is_kept_below(needed, taker, name)
            if kept is not None:
                return kept == itself
            if taker.op in _SAME:
                waiting.append((taker.name, itself))
            elif taker.op == "Sub" and node_of(data_inputs(taker)[1]) == name:
                waiting.append((taker.name, not itself))
    return None


def _is_kept_below(needed: SubGraph, taker: NodeDef, name: str) -> bool | None:
    """Whether what is drawn below `name` is kept (or dropped); None where nothing is compared."""
    inputs = [node_of(text) for text in data_inputs(taker)]
    if len(inputs) != 2 or taker.op not in _SUMS | _BELOW | _ABOVE:
        return None
    second = inputs[1] == name
    if not _is_random(needed.meta.nodes, inputs[0] if second else inputs[1]):
        return None
    if taker.op in _SUMS:
        return True
    return (taker.op in _BELOW) == second


def _takers(needed: SubGraph, name: str) -> Iterator[NodeDef]:
    nodes = needed.meta.nodes
    for other in needed.names:
        if any(node_of(text) == name for text in data_inputs(nodes[other])):
            yield nodes[other]


def _is_random(nodes: Mapping[str, NodeDef], name: str, near: int = _NEAR) -> bool:
    """Whether a few operations at most lie between random numbers and a node."""
    node = nodes.get(name)
    if node is None or near == 0:
        return False
    if node.op in RANDOM_OPS or str(node.op).startswith(_STATELESS):
        return True
    return any(_is_random(nodes, node_of(text), near - 1) for text in data_inputs(node))
