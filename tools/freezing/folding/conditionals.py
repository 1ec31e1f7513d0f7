"""Conditionals of the old kind: what stands between a Switch and a Merge, and never runs.

A `Switch` gives its value at one of two outputs, as its predicate says. Whatever follows from the
other is dead and does not run, up to a `Merge`, which passes on the input that is alive.

Operations: `tensorflow/core/ops/control_flow_ops.cc`.
"""

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.loading.graph_view import attribute, data_inputs
from checkpoints.loading.meta_graph_file import node_of
from prediction.wiring import output_index
from tools.freezing.folding.scalars import Scalars
from tools.freezing.nodes import make_constant, make_identity, waits

_INT32 = tf.int32.as_datatype_enum


def fold_conditionals(graph: GraphDef, wanted: Collection[str]) -> bool:
    """Makes each Switch of a known predicate pass on its value, and each Merge its live input.

    Args:
      graph: changed in place; dead nodes stay, and nothing that is alive takes them.
      wanted: full names of the tensors that are fetched.

    Returns:
      Whether something was folded: a further predicate may be known then.
    """
    nodes = {node.name: node for node in graph.node}
    live = _live_outputs(nodes, wanted)
    dead = _dead(nodes, {(name, 1 - output) for name, output in live.items()})
    if not live or dead.intersection(node_of(name) for name in wanted):
        return False
    indices = dict[str, str]()
    for node in (n for name, n in nodes.items() if n.op == "Merge" and name not in dead):
        indices.update(_fold_merge(graph, node, dead, live))
    for name in live:
        make_identity(nodes[name], nodes[name].input[0], attribute(nodes[name], "T").type)
    renamed = {f"{name}:{output}": name for name, output in live.items()} | indices
    for node in graph.node:
        inputs = [renamed.get(text, text) for text in node.input]
        del node.input[:]
        node.input.extend(inputs)
    return True


def _live_outputs(nodes: Mapping[str, NodeDef], wanted: Collection[str]) -> dict[str, int]:
    """Of each Switch whose predicate is known, the output that is alive."""
    known = Scalars(nodes)
    fetched = {node_of(name) for name in wanted}
    found = {}
    for name, node in nodes.items():
        if node.op == "Switch" and name not in fetched:
            predicate = known.value(data_inputs(node)[1])
            if predicate is not None:
                found[name] = int(bool(predicate))
    return found


def _dead(nodes: Mapping[str, NodeDef], outputs: Collection[tuple[str, int]]) -> set[str]:
    """The nodes that never run, as they take, or wait for, something dead."""
    takers: dict[str, list[NodeDef]] = {}
    for node in nodes.values():
        for name in {node_of(text.removeprefix("^")) for text in node.input}:
            takers.setdefault(name, []).append(node)
    dead = set[str]()
    waiting = [name for name, _ in outputs]
    while waiting:
        for node in takers.get(waiting.pop(), ()):
            if node.name not in dead and _is_dead(nodes, node, dead, outputs):
                dead.add(node.name)
                waiting.append(node.name)
    return dead


def _is_dead(
    nodes: Mapping[str, NodeDef],
    node: NodeDef,
    dead: Collection[str],
    outputs: Collection[tuple[str, int]],
) -> bool:
    if node.op != "Merge":
        return any(_comes_dead(text, dead, outputs) for text in node.input)
    # What a loop gives back is dead if what it began with is.
    begun = [t for t in data_inputs(node) if nodes[node_of(t)].op != "NextIteration"]
    return all(_comes_dead(text, dead, outputs) for text in begun)


def _comes_dead(text: str, dead: Collection[str], outputs: Collection[tuple[str, int]]) -> bool:
    name = node_of(text.removeprefix("^"))
    return name in dead or (not text.startswith("^") and (name, output_index(text)) in outputs)


def _fold_merge(
    graph: GraphDef, node: NodeDef, dead: Collection[str], live: Mapping[str, int]
) -> dict[str, str]:
    """Leaves the one live input of a Merge, and makes a constant of what says which one it was."""
    outputs = {(name, 1 - output) for name, output in live.items()}
    inputs = data_inputs(node)
    alive = [i for i, text in enumerate(inputs) if not _comes_dead(text, dead, outputs)]
    if len(alive) != 1:
        return {}
    wait = [text for text in waits(node) if text[1:] not in dead]
    make_identity(node, inputs[alive[0]], attribute(node, "T").type)
    del node.input[1:]
    node.input.extend(wait)
    index = graph.node.add(name=f"{node.name}/value_index")
    make_constant(index, np.asarray(alive[0], np.int32), _INT32, [f"^{node.name}"])
    return {f"{node.name}:1": index.name}
