"""What is frozen, told from the file alone: the outputs, where the graph is cut, what is off.

At each cut, a placeholder or a constant stands in the place of the tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef

from errors import ToolError
from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    TensorInfo,
    node_of,
)
from metagraph.model import Model, fetchable, find_candidates, read_model
from metagraph.session import Role, RoleFinder, describe_tensors, off_value, says_switch
from metagraph.tables import Filling, with_tables
from metagraph.usage import is_source, output_index
from metagraph.variables import VARIABLE_OPS
from tools.graph_nodes import add_placeholder, make_constant

_GIVEN = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_PARSES = "Parse"  # An operation that takes serialized examples apart, and takes them from a feed.


@dataclass(frozen=True)
class FreezePlan:
    """What is frozen of the file `meta`, which says `model` of itself.

    Attributes:
      outputs: full tensor names, by the signature's keys where it has them.
      inputs: those of the tensors that are fed; some may turn out not to be needed.
      off: names of training switches and dropouts -> their values.
      needed: what the outputs need, cut at the inputs and at what is off.
      fillings: of the lookup tables among it.
    """

    meta: MetaGraphFile
    model: Model
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    off: Mapping[str, bool | float]
    needed: SubGraph
    fillings: Sequence[Filling]


def plan_freeze(
    meta: MetaGraphFile, outputs: Sequence[str], inputs: Sequence[str], signature: str | None
) -> FreezePlan:
    """Finds out what is frozen of a file, for the `outputs`, `inputs` and so on of a `PartConfig`.

    Raises:
      CheckpointError: there is no such tensor or signature, or the graph is damaged.
      ToolError: nothing is to be frozen.
    """
    model = read_model(meta, signature)
    wanted = _outputs(meta, model, outputs)
    named = [meta.tensor_name(text, model.feed_keys) for text in inputs]
    signed = list(dict.fromkeys(model.inputs.values()))
    taken = sub_graph(meta, wanted, [*named, *signed]).feeds
    cuts = list(dict.fromkeys([*named, *(name for name in signed if name in taken)]))
    cuts += _pipeline(meta, wanted, cuts)
    off = _off(meta, model, wanted, [name for name in cuts if name in named or name not in signed])
    cuts = [name for name in cuts if name not in off]
    needed, fillings = with_tables(meta, wanted, [*cuts, *off])
    given = [name for name in cuts if name in needed.feeds or name in wanted]
    given += [name for name in needed.unfed if name not in given]
    for name in cuts:
        if name not in given and inputs:
            logging.warning("%s is no input: none of %s needs it", name, ", ".join(wanted))
    return FreezePlan(
        meta=meta,
        model=model,
        outputs=_by_key(wanted, model.outputs),
        inputs=_by_key(given, model.inputs),
        off={name: value for name, value in off.items() if name in needed.feeds},
        needed=needed,
        fillings=fillings,
    )


def _outputs(meta: MetaGraphFile, model: Model, asked: Sequence[str]) -> list[str]:
    names = [meta.tensor_name(text, model.fetch_keys) for text in asked]
    names = names or [*model.predict, *model.outputs.values()]
    if not names:
        raise ToolError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to keep with --outputs{fetchable(meta, model, '--outputs')}"
        )
    return list(dict.fromkeys(names))


def _pipeline(meta: MetaGraphFile, wanted: Sequence[str], cuts: Sequence[str]) -> list[str]:
    """Where rows come from a queue or an iterator, what comes out of it is fed in its place."""
    needed = sub_graph(meta, wanted, cuts)
    nodes = (meta.nodes[name] for name in needed.names)
    if not any(is_source(node) and _PARSES not in node.op for node in nodes):
        return []
    found = find_candidates(meta, wanted=wanted).pipeline
    taken = sub_graph(meta, wanted, [*cuts, *found]).feeds
    return [name for name in found if name in taken and name not in cuts]


def _off(
    meta: MetaGraphFile, model: Model, wanted: Sequence[str], cuts: Sequence[str]
) -> dict[str, bool | float]:
    """The training switches and dropouts before `cuts`, with their values when off.

    They are placeholders, or variables of one bool. A bool that the signature has as an input is a
    switch only where its name says so.
    """
    needed, found = sub_graph(meta, wanted, cuts), {}
    finder = RoleFinder(needed)
    nodes = [meta.nodes[name] for name in meta.nodes if name in needed.names]
    given = [f"{node.name}:0" for node in nodes if node.op in _GIVEN | VARIABLE_OPS]
    for info in describe_tensors(meta, given) if given else ():
        is_variable = meta.nodes[node_of(info.name)].op in VARIABLE_OPS
        role = None if is_variable and info.dtype.name != "bool" else finder.role(info)
        unsure = info.name in model.inputs.values() or info.shape is None
        if role is None or (role is Role.SWITCH and unsure and not says_switch(info.name)):
            continue
        found[info.name] = off_value(info.name, role)
    return found


def _by_key(names: Sequence[str], keys: Mapping[str, str]) -> dict[str, str]:
    """Tensors by the signature's keys; those that have none by their own names, `:0` left out."""
    found: dict[str, str] = {}
    for name in names:
        own = [key for key, tensor in keys.items() if tensor == name]
        for key in own or [name.removesuffix(":0")]:
            found[key if key not in found else name] = name
    return found


# Puts a placeholder, or a constant, in the place of each tensor at which a graph is cut.

_SCOPE = "cut"


def add_cuts(graph: GraphDef, needed: SubGraph, cuts: Mapping[str, bool | float | None]) -> None:
    """Adds what the nodes of a cut graph take, under the names that they take it by.

    Args:
      graph: the graph of `needed`; nodes are added to it.
      needed: where the graph comes from, and where it is cut.
      cuts: full tensor names -> their constant values; None for placeholders.

    Raises:
      CheckpointError: a cut has no dtype that can be fed.
      ToolError: another output of a cut node is needed too, so that it has to stay.
    """
    by_node: dict[str, dict[int, TensorInfo]] = {}
    names = [name for name in cuts if node_of(name) not in needed.names]
    for name in cuts.keys() - names:
        if name in needed.feeds:
            raise ToolError(
                f"the graph cannot be cut at {name} alone, as it needs other outputs of "
                f"{node_of(name)} too: name all that it takes of it with --inputs"
            )
    for info in describe_tensors(needed.meta, names) if names else ():
        by_node.setdefault(node_of(info.name), {})[output_index(info.name)] = info
    for node, outputs in by_node.items():
        if [*outputs] == [0]:
            _add(graph, node, outputs[0], cuts[outputs[0].name])
        else:
            _add_several(graph, node, outputs, needed)


def _add(graph: GraphDef, name: str, info: TensorInfo, value: bool | float | None) -> None:
    """Adds a node of one output."""
    if info.dtype in (tf.resource, tf.variant):
        raise ToolError(f"{info.name} cannot be an input: it is a {info.dtype.name}")
    if value is None:
        add_placeholder(graph, name, info.dtype, info.shape)
    else:
        array = np.asarray(value, info.dtype.as_numpy_dtype)
        make_constant(graph.node.add(name=name), array, info.dtype.as_datatype_enum)


def _add_several(
    graph: GraphDef, name: str, outputs: Mapping[int, TensorInfo], needed: SubGraph
) -> None:
    """Adds a node with as many outputs as are taken, each of which passes on a placeholder.

    An output before the last that nobody takes passes on what the last one does.
    """
    scope = f"{name}/{_SCOPE}"
    while any(node == scope or node.startswith(f"{scope}_") for node in needed.meta.nodes):
        scope += "_"
    last = max(outputs)
    for index, info in outputs.items():
        _add(graph, f"{scope}_{index}", info, None)
    passed = [index if index in outputs else last for index in range(last + 1)]
    node = graph.node.add(name=name, op="IdentityN")
    node.input.extend(f"{scope}_{index}" for index in passed)
    node.attr["T"].list.type.extend(outputs[index].dtype.as_datatype_enum for index in passed)
