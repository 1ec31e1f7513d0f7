"""What tells a graph that it is being trained: switches, and how much of its units a dropout keeps.

A value of one bool is a switch. A value of one number is a dropout's if random numbers are compared
with it, or if its name says so.
"""

import re
from collections import defaultdict
from enum import Enum

from tensorflow.core.framework.node_def_pb2 import NodeDef

from metagraph.graph import SubGraph, data_inputs
from metagraph.meta import TensorInfo, node_of
from metagraph.safety import RANDOM_OPS

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
    """The value in evaluation and prediction, of any role but `OTHER`.

    The name of a switch tells whether it is one of training or of the contrary, as `testing` is.
    """
    if role is Role.SWITCH:
        return bool(_INVERTED.search(name)) and not _TRAINING.search(name)
    return 1.0 if role is Role.KEEP else 0.0


def says_switch(name: str) -> bool:
    """Whether a name speaks of training, or of its contrary."""
    return bool(_INVERTED.search(name) or _TRAINING.search(name))


class RoleFinder:
    """Tells what the values decide that a sub-graph is computed from."""

    def __init__(self, needed: SubGraph) -> None:
        self._nodes = needed.meta.nodes
        self._takers: dict[str, list[NodeDef]] = defaultdict(list)
        for node in (node for name, node in self._nodes.items() if name in needed.names):
            for source in dict.fromkeys(map(node_of, data_inputs(node))):
                self._takers[source].append(node)

    def role(self, info: TensorInfo) -> Role | None:
        """What a placeholder, or a variable, decides; None where it is not known."""
        if info.shape not in (None, ()):
            return None
        if info.dtype.name == "bool":
            return Role.SWITCH
        if not info.dtype.is_floating:
            return None
        role = self._compared(node_of(info.name))
        if role is None and (_KEEP.search(info.name) or _DROP.search(info.name)):
            return Role.KEEP if _KEEP.search(info.name) else Role.RATE
        return role

    def _compared(self, node: str) -> Role | None:
        """By what random numbers are compared with: the number, or one minus it."""
        waiting, seen = [(node, Role.KEEP, Role.RATE)], set[str]()
        while waiting:
            name, kept, dropped = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for taker in self._takers.get(name, ()):
                inputs = [node_of(text) for text in data_inputs(taker)]
                second = inputs[-1] == name
                if taker.op in _SAME:
                    waiting.append((taker.name, kept, dropped))
                elif taker.op == "Sub" and second:
                    waiting.append((taker.name, dropped, kept))
                elif taker.op in _SUMS | _BELOW | _ABOVE:
                    keeps = taker.op in _SUMS or (taker.op in _BELOW) == second
                    if self._is_random(inputs[0] if second else inputs[-1]):
                        return kept if keeps else dropped
        return None

    def _is_random(self, name: str, near: int = _NEAR) -> bool:
        """Whether a few operations at most lie between random numbers and a node."""
        node = self._nodes.get(name)
        if node is None or near == 0:
            return False
        if node.op in RANDOM_OPS or node.op.startswith(_STATELESS):
            return True
        return any(self._is_random(node_of(text), near - 1) for text in data_inputs(node))
