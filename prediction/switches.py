"""What tells a graph that it is being trained: switches, and how much of its units a dropout keeps.

Those of a stranger's graph are found by what they are, not by a list of names: a value of one bool
is a switch; a value of one number is a dropout's if random numbers are compared with it, or if its
name says so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import data_inputs
from checkpoints.loading.meta_graph_file import node_of
from checkpoints.loading.sub_graph import SubGraph
from checkpoints.loading.tensor_info import TensorInfo
from prediction.randomness import RANDOM_OPS

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


def off_value(name: str, role: Role) -> bool | float:
    """The value in evaluation and prediction.

    Args:
      name: of a switch, tells whether it is one of training or of the contrary, as `testing` is.
      role: any but `OTHER`.
    """
    if role is Role.SWITCH:
        return bool(_INVERTED.search(name)) and not _TRAINING.search(name)
    return 1.0 if role is Role.KEEP else 0.0


def says_switch(name: str) -> bool:
    """Whether a name speaks of training, or of its contrary."""
    return bool(_INVERTED.search(name) or _TRAINING.search(name))


class RoleFinder:
    """Tells what the values decide that a sub-graph is given."""

    def __init__(self, needed: SubGraph) -> None:
        """Walks over the sub-graph once.

        Args:
          needed: what is computed from the values.
        """
        self._nodes = needed.meta.nodes
        self._takers = _takers(self._nodes[name] for name in self._nodes if name in needed.names)

    def role(self, info: TensorInfo) -> Role | None:
        """What a placeholder, or a variable, decides; None where it is not known."""
        if info.shape not in (None, ()):
            return None
        if info.dtype.name == "bool":
            return Role.SWITCH
        if not info.dtype.is_floating:
            return None
        keeps = self._keeps(node_of(info.name))
        if keeps is None:
            keeps = bool(_KEEP.search(info.name))
            if not keeps and not _DROP.search(info.name):
                return None
        return Role.KEEP if keeps else Role.RATE

    def _keeps(self, node: str) -> bool | None:
        """Whether a number is the share that a dropout keeps (or drops); None where it is neither.

        It is found by what random numbers are compared with: the number, or one minus it.
        """
        waiting, seen = [(node, True)], set[str]()
        while waiting:
            name, itself = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for taker in self._takers.get(name, ()):
                kept = _is_kept_below(self._nodes, taker, name)
                if kept is not None:
                    return kept == itself
                if taker.op in _SAME:
                    waiting.append((taker.name, itself))
                elif taker.op == "Sub" and node_of(data_inputs(taker)[1]) == name:
                    waiting.append((taker.name, not itself))
        return None


def _takers(nodes: Iterable[NodeDef]) -> Mapping[str, Sequence[NodeDef]]:
    """Node -> the nodes that take an output of it."""
    found: dict[str, list[NodeDef]] = {}
    for node in nodes:
        for name in dict.fromkeys(map(node_of, data_inputs(node))):
            found.setdefault(name, []).append(node)
    return found


def _is_kept_below(nodes: Mapping[str, NodeDef], taker: NodeDef, name: str) -> bool | None:
    """Whether what is drawn below `name` is kept (or dropped); None where nothing is compared."""
    inputs = [node_of(text) for text in data_inputs(taker)]
    if len(inputs) != 2 or taker.op not in _SUMS | _BELOW | _ABOVE:
        return None
    second = inputs[1] == name
    if not _is_random(nodes, inputs[0] if second else inputs[1]):
        return None
    if taker.op in _SUMS:
        return True
    return (taker.op in _BELOW) == second


def _is_random(nodes: Mapping[str, NodeDef], name: str, near: int = _NEAR) -> bool:
    """Whether a few operations at most lie between random numbers and a node."""
    node = nodes.get(name)
    if node is None or near == 0:
        return False
    if node.op in RANDOM_OPS or str(node.op).startswith(_STATELESS):
        return True
    return any(_is_random(nodes, node_of(text), near - 1) for text in data_inputs(node))
