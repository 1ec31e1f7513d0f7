"""A graph as who takes what of whom, for finding out what a stranger's graph is for."""

import posixpath
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of

SHAPE_OPS = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_MAX_INPUTS = 64  # So many are told apart.


class Wiring(NamedTuple):
    """The data inputs of a graph; control inputs are left out, cycles of old loops are not.

    Attributes:
      nodes: by name, in the file's order.
      taken: node -> the names of the tensors it takes, as in the file.
      takers: node -> the nodes that take an output of it, once for each.
    """

    nodes: Mapping[str, NodeDef]
    taken: Mapping[str, Sequence[str]]
    takers: Mapping[str, Sequence[str]]

    def tensors_taken(self, taker: str, name: str) -> set[str]:
        """The full names of those outputs of the node `name` that `taker` takes."""
        taken = (text for text in self.taken[taker] if node_of(text) == name)
        return {f"{name}:{output_index(text)}" for text in taken}


def wiring_of(meta: MetaGraphFile) -> Wiring:
    """Inputs that do not exist are left out."""
    taken: dict[str, list[str]] = {}
    takers: dict[str, list[str]] = defaultdict(list)
    for name, node in meta.nodes.items():
        taken[name] = [
            text for text in node.input if not text.startswith("^") and node_of(text) in meta.nodes
        ]
        for text in taken[name]:
            takers[node_of(text)].append(name)
    return Wiring(meta.nodes, taken, takers)


def output_index(text: str) -> int:
    """1 of `a:1`, 0 of `a`; of what is neither, 0."""
    index = text.partition(":")[2]
    return int(index) if index.isdecimal() and len(index) < 10 else 0


def scope_of(node: str) -> str:
    """`a/b` of `a/b/c`."""
    return posixpath.dirname(node)


def ancestors(wiring: Wiring, names: Collection[str]) -> set[str]:
    """What the named nodes are computed from; they themselves only where another is from them."""
    found = set[str]()
    waiting = list(names)
    while waiting:
        for text in wiring.taken[waiting.pop()]:
            if node_of(text) not in found:
                found.add(node_of(text))
                waiting.append(node_of(text))
    return found


def dependence(
    wiring: Wiring, inputs: Sequence[str], left_out: Collection[str]
) -> Mapping[str, int]:
    """Node -> the inputs that its values depend on, a bit for each, of the first input the lowest.

    What takes but the shape of a tensor does not depend on it.

    Args:
      wiring: of the graph.
      inputs: full tensor names; where there are none, each node depends on none of them. Of more
        than 64, the first ones count.
      left_out: nodes that the walk stops at.

    Returns:
      Nodes that depend on no input are not in it, nor what is left out.
    """
    if not inputs:
        return {name: 0 for name in wiring.nodes if name not in left_out}
    bits = {name: 1 << bit for bit, name in enumerate(inputs[:_MAX_INPUTS])}
    given = {node_of(name) for name in bits}
    found = {node: _bits_of(bits, [n for n in bits if node_of(n) == node]) for node in given}
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        if wiring.nodes[name].op in SHAPE_OPS:
            continue
        for taker in set(wiring.takers.get(name, ())).difference(left_out):
            passed = found[name]
            if name in given:  # Of several outputs, each is an input of its own.
                passed = _bits_of(bits, wiring.tensors_taken(taker, name))
            both = found.get(taker, 0) | passed
            if both != found.get(taker, 0):
                found[taker] = both
                waiting.append(taker)
    return found


def _bits_of(bits: Mapping[str, int], names: Collection[str]) -> int:
    total = 0
    for name in names:
        total |= bits.get(name, 0)
    return total
