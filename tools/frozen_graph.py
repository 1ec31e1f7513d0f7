"""A model and its checkpoint as one graph of constants, for inference, under the same names.

First a plan is made from the file alone: the outputs, where the graph is cut, and what is off. Then
the graph is worked on as data, and nothing of it runs. What fills its lookup tables comes with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

from checkpoints import layout
from errors import ToolError
from metagraph.description import Array, Model, TensorInfo
from metagraph.graph import SubGraph, sub_graph
from metagraph.meta import INPUT_OPS, PLACEHOLDERS, MetaGraphFile, node_of, output_index
from metagraph.model import fetchable, handed_out, read_model
from metagraph.safety import check_operations
from metagraph.session import Restoring, describe_tensors, free_scope
from metagraph.tables import Filling, with_tables
from metagraph.usage import Role, RoleFinder, off_value, says_switch
from metagraph.variables import VARIABLE_OPS, Variable, variable_of
from prediction.chosen_model import READING
from tools.folding import fill_constants, fold, make_constant, make_placeholder, replace_variables
from tools.freeze import PartConfig

TABLE_INITIALIZERS = "table_initializer"
_TABLES_SCOPE = "tables"
_CUT_SCOPE = "cut"
_CUT = "Cut it with --inputs at {}"
_KEPT = (
    layout.CLASS_NAMES_COLLECTION,
    layout.IMAGE_SHAPE_COLLECTION,
    layout.INPUT_SCALE_COLLECTION,
    layout.TRAINED_ON_COLLECTION,
)


@dataclass(frozen=True)
class FreezePlan:
    """What is frozen of the file `meta`, which says `model` of itself.

    Outputs and inputs are by the signature's keys, or by their own names where they have none.
    """

    meta: MetaGraphFile
    model: Model
    outputs: Mapping[str, TensorInfo]
    inputs: Mapping[str, TensorInfo]  # Some may turn out not to be needed.
    off: Mapping[str, Array]  # By full name, what has this value for good.
    needed: SubGraph  # Cut at the inputs and at what is off, but not at variables.
    fillings: Sequence[Filling]

    @cached_property
    def given(self) -> dict[str, TensorInfo | Array]:
        """By full name, what is fed, and the value of what is off."""
        return {**{info.name: info for info in self.inputs.values()}, **self.off}

    @property
    def off_values(self) -> dict[str, bool | float]:
        """What is off, as JSON values."""
        return {name: value.item() for name, value in self.off.items()}


def plan_freeze(meta: MetaGraphFile, config: PartConfig) -> FreezePlan:
    """Finds out what is frozen of a file; values are not read, and nothing of the graph runs.

    Raises CheckpointError where there is no such tensor or signature, the graph is damaged, or an
    operation may do more than compute; ToolError where nothing is to be frozen.
    """
    with config.limit.over(READING):
        model = read_model(meta, config.signature)
        wanted = _outputs(meta, model, config.outputs)
        named = [meta.tensor_name(text, model.feed_keys) for text in config.inputs]
        cuts = _cuts(meta, model, wanted, named)
        unsigned = [name for name in cuts if name in named or name not in model.inputs.values()]
        off = _off(meta, model, wanted, unsigned)
        cuts = [name for name in cuts if name not in off]
        fed = [n for n in (*cuts, *off) if meta.nodes[node_of(n)].op not in VARIABLE_OPS]
        needed, fillings = with_tables(meta, wanted, fed)
        check_operations(needed.graph_def, meta.path, config.trust_graph, _CUT)
        given = list(dict.fromkeys([*cuts, *needed.unfed]))
        infos = {info.name: info for info in describe_tensors(meta, [*wanted, *given])}
    outputs = _by_key([infos[name] for name in wanted], model.outputs)
    inputs = _by_key([infos[name] for name in given], model.inputs)
    return FreezePlan(meta, model, outputs, inputs, off, needed, fillings)


def _outputs(meta: MetaGraphFile, model: Model, asked: Sequence[str]) -> list[str]:
    names = [meta.tensor_name(text, model.fetch_keys) for text in asked]
    names = names or [*model.predict, *model.outputs.values()]
    if not names:
        raise ToolError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to keep with --fetch{fetchable(meta, model)}"
        )
    return list(dict.fromkeys(names))


def _cuts(
    meta: MetaGraphFile, model: Model, wanted: Sequence[str], named: Sequence[str]
) -> list[str]:
    """The tensors that are fed: `named` ones, those of the signature that are needed.

    Where rows come from a queue, an iterator or a parser of examples, what comes out of it too.
    """
    signed = list(dict.fromkeys(model.inputs.values()))
    taken = sub_graph(meta, wanted, [*named, *signed]).feeds
    cuts = list(dict.fromkeys([*named, *(name for name in signed if name in taken)]))
    return cuts + handed_out(meta, wanted, cuts, by_all=True)


def _off(
    meta: MetaGraphFile, model: Model, wanted: Sequence[str], cuts: Sequence[str]
) -> dict[str, Array]:
    """The training switches and dropouts before `cuts`, with their values when off.

    They are placeholders, or variables of one bool. A bool that the signature has as an input is a
    switch only where its name says so.
    """
    needed, found = sub_graph(meta, wanted, cuts), {}
    finder = RoleFinder(needed)
    nodes = [meta.nodes[name] for name in meta.nodes if name in needed.names]
    given = [f"{node.name}:0" for node in nodes if node.op in INPUT_OPS | VARIABLE_OPS]
    for info in describe_tensors(meta, given) if given else ():
        is_variable = meta.nodes[node_of(info.name)].op in VARIABLE_OPS
        role = None if is_variable and info.dtype.name != "bool" else finder.role(info)
        unsure = info.name in model.inputs.values() or info.shape is None
        if role is None or (role is Role.SWITCH and unsure and not says_switch(info.name)):
            continue
        found[info.name] = np.asarray(off_value(info.name, role), info.dtype.as_numpy_dtype)
    return found


def _by_key(infos: Sequence[TensorInfo], keys: Mapping[str, str]) -> dict[str, TensorInfo]:
    """Tensors by the signature's keys; those that have none by their own names, `:0` left out."""
    found: dict[str, TensorInfo] = {}
    for info in infos:
        own = [key for key, tensor in keys.items() if tensor == info.name]
        for key in own or [info.name.removesuffix(":0")]:
            found[key if key not in found else info.name] = info
    return found


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables: nothing but what the plan's outputs need.

    Its `meta` has the signature `serving_default`, the collections that predict.py uses, and
    `table_initializer`, what a session has to run first.
    """

    meta: MetaGraphDef
    inputs: Mapping[str, TensorInfo]  # Those of the plan that are still needed.
    plan: FreezePlan


def freeze_plan(plan: FreezePlan, config: PartConfig) -> FrozenGraph:
    """Freezes; no file is written, and nothing of the graph runs.

    Raises CheckpointError where the checkpoint lacks a variable or is damaged, or a table's file
    is; ToolError where handles of variables cannot be followed, the graph cannot be cut where it is
    asked to, or is too large.
    """
    source, meta = plan.meta, MetaGraphDef()
    wanted = [info.name for info in plan.outputs.values()]
    with config.limit.over(READING):
        graph, variables, tables = _without_variables(plan, wanted, config.asset)
        meta.graph_def.CopyFrom(graph)
    fill_constants(meta.graph_def, source, variables)  # In its place: it may fill the memory.
    left = {node.name for node in meta.graph_def.node}
    inputs = {key: info for key, info in plan.inputs.items() if node_of(info.name) in left}
    for text in config.inputs:
        name = source.tensor_name(text, plan.model.feed_keys)
        if node_of(name) not in left:
            logging.warning("%s is no input: none of %s needs it", name, ", ".join(wanted))
    meta.signature_def[layout.SIGNATURE].CopyFrom(signature_of(inputs, plan.outputs))
    predict = [name for name in plan.model.predict if name in wanted]
    for key, names in ((layout.PREDICT_COLLECTION, predict), (TABLE_INITIALIZERS, tables)):
        if names:
            meta.collection_def[key].node_list.value.extend(names)
    for key in _KEPT:
        if key in source.proto.collection_def:
            meta.collection_def[key].CopyFrom(source.collection(key))
    return FrozenGraph(meta, inputs, plan)


def _without_variables(
    plan: FreezePlan, outputs: Sequence[str], assets: Mapping[str, str]
) -> tuple[GraphDef, dict[str, Variable], list[str]]:
    """The graph with all but the values; the variables that they are of; what fills tables."""
    source, graph = plan.meta, plan.needed.graph_def
    _add_cuts(graph, plan)
    tables = _add_table_values(graph, source, plan.fillings, assets)
    wanted = [*outputs, *(f"{name}:0" for name in tables)]
    nodes = [source.nodes[node.name] for node in graph.node if node.op in VARIABLE_OPS]
    variables = {node.name: variable_of(source, node) for node in nodes}
    graph = replace_variables(graph, variables, wanted, source.path)
    for node in graph.node:
        given = plan.given.get(f"{node.name}:0")
        if given is not None and (node.name in variables or node.op in PLACEHOLDERS):
            _make_given(node, given)  # A placeholder may leave open what is known of it.
            variables.pop(node.name, None)
    fold(graph, wanted)
    folded = MetaGraphFile(source.path, source.prefix, MetaGraphDef(graph_def=graph))
    return sub_graph(folded, wanted).graph_def, variables, tables


def signature_of(
    inputs: Mapping[str, TensorInfo], outputs: Mapping[str, TensorInfo]
) -> SignatureDef:
    """One that TensorFlow Serving predicts by."""
    method = tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
    signature = SignatureDef(method_name=method)
    for protos, infos in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for key, info in infos.items():
            shape = tf.TensorShape(info.shape).as_proto()
            dtype = info.dtype.as_datatype_enum
            protos[key].CopyFrom(TensorInfoProto(name=info.name, dtype=dtype, tensor_shape=shape))
    return signature


def _add_cuts(graph: GraphDef, plan: FreezePlan) -> None:
    """Adds what the nodes of a cut graph take, under the names that they take it by.

    A node of which an output but the first is taken becomes an `IdentityN` of placeholders; an
    output that nobody takes passes on what the last one does. Raises ToolError where another output
    of a cut node is needed too, so that it has to stay.
    """
    needed, cuts = plan.needed, dict[str, dict[int, TensorInfo | Array]]()
    for name, what in plan.given.items():
        if node_of(name) not in needed.names:
            cuts.setdefault(node_of(name), {})[output_index(name)] = what
        elif needed.meta.nodes[node_of(name)].op not in PLACEHOLDERS | VARIABLE_OPS:
            raise ToolError(
                f"the graph cannot be cut at {name} alone, as it needs other outputs of "
                f"{node_of(name)} too: name all that it takes of it with --inputs"
            )
    for name, outputs in cuts.items():
        if [*outputs] == [0]:
            _make_given(graph.node.add(name=name), outputs[0])
            continue
        scope = free_scope(needed.meta, _CUT_SCOPE)
        made = {i: graph.node.add(name=f"{scope}/{name}_{i}") for i in outputs}
        for index, what in outputs.items():
            _make_given(made[index], what)
        passed = [made.get(i, made[max(made)]) for i in range(max(made) + 1)]
        node = graph.node.add(name=name, op="IdentityN", input=[taken.name for taken in passed])
        node.attr["T"].list.type.extend(taken.attr["dtype"].type for taken in passed)


def _make_given(node: NodeDef, what: TensorInfo | Array) -> None:
    """Makes a node a placeholder, or the constant of what is off."""
    if isinstance(what, TensorInfo):
        make_placeholder(node, what.dtype, what.shape)
    else:
        make_constant(node, what)


def _add_table_values(
    graph: GraphDef, meta: MetaGraphFile, fillings: Sequence[Filling], assets: Mapping[str, str]
) -> list[str]:
    """Adds what fills the lookup tables, as constants; returns the nodes to run for that.

    A table is no constant: each session has to fill it. predict.py does so by itself, as the
    collection `table_initializer` names the nodes; another client has to.
    """
    restoring = Restoring(meta, (), fillings, free_scope(meta, _TABLES_SCOPE))
    steps = restoring.steps(assets)
    graph.MergeFrom(restoring.graph_def)
    nodes = {node.name: node for node in graph.node}
    for step in steps:
        for tensor, value in step.feeds.items():
            make_constant(nodes[node_of(tensor)], value)
    return [name for step in steps for name in step.targets]
