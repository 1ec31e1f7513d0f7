"""A model and its checkpoint as one graph of constants, for inference, under the same names.

First a plan is told from the file alone: the outputs, where the graph is cut, and what is off. Then
the graph is worked on as data, and nothing of it runs. What fills its lookup tables comes with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.manifest import (
    CLASS_NAMES_COLLECTION,
    IMAGE_SHAPE_COLLECTION,
    INPUT_SCALE_COLLECTION,
    PREDICT_COLLECTION,
    SIGNATURE,
    TRAINED_ON_COLLECTION,
)
from errors import ToolError
from metagraph.graph import SubGraph, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    TensorInfo,
    node_of,
)
from metagraph.model import Model, fetchable, find_candidates, read_model
from metagraph.safety import check_operations
from metagraph.session import describe_tensors
from metagraph.switches import Role, RoleFinder, off_value, says_switch
from metagraph.tables import Filling, with_tables
from metagraph.usage import is_source, output_index
from metagraph.values import Restoring, free_scope
from metagraph.variables import VARIABLE_OPS, Variable
from prediction.chosen_model import READING
from tools.folding import fold
from tools.freeze import PartConfig
from tools.frozen_variables import check_writers, fill_constants, replace_variables, variables_of
from tools.graph_nodes import add_placeholder, make_constant

TABLE_INITIALIZERS = "table_initializer"
_TABLES_SCOPE = "tables"
_KEPT = (
    CLASS_NAMES_COLLECTION,
    IMAGE_SHAPE_COLLECTION,
    INPUT_SCALE_COLLECTION,
    TRAINED_ON_COLLECTION,
)
_GIVEN = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_PARSES = "Parse"  # An operation that takes serialized examples apart, and takes them from a feed.
_CUT_SCOPE = "cut"


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


def plan_freeze(meta: MetaGraphFile, config: PartConfig) -> FreezePlan:
    """Finds out what is frozen of a file; values are not read, and nothing of the graph runs.

    Raises:
      CheckpointError: there is no such tensor or signature, the graph is damaged, or an operation
        may do more than compute.
      ToolError: nothing is to be frozen.
    """
    with config.limit.over(READING):
        plan = _plan(meta, config)
        check_operations(plan.needed.graph_def, meta.path, config.trust_graph)
    return plan


def _plan(meta: MetaGraphFile, config: PartConfig) -> FreezePlan:
    model = read_model(meta, config.signature)
    wanted = _outputs(meta, model, config.outputs)
    named = [meta.tensor_name(text, model.feed_keys) for text in config.inputs]
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
        if name not in given and named:
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
            f"output: name what to keep with --fetch{fetchable(meta, model)}"
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


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables.

    Attributes:
      meta: the graph, nothing but what the outputs need; the signature `serving_default`; the
        collections that predict.py uses, and `table_initializer`, what a session has to run first.
      inputs: signature key -> full tensor name, of what is still to be fed; a tensor without a key
        has its own name as its key.
      outputs: the same of what is kept.
      plan: what was frozen, by the original's names.
      scope: what all names of `meta` begin with, such as `imported/`; empty for the original's.
    """

    meta: MetaGraphDef
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    plan: FreezePlan
    scope: str = ""

    def as_file(self, path: str) -> MetaGraphFile:
        """The same as what a file at `path` would be read as."""
        return MetaGraphFile(path, path, self.meta)


def freeze_plan(plan: FreezePlan, config: PartConfig, scope: str = "") -> FrozenGraph:
    """Freezes; no file is written, and nothing of the graph runs.

    Args:
      plan: what `plan_freeze` has told.
      config: the same as it took.
      scope: what all names of the result begin with, without the last `/`, as if it had been
        imported by `tf.import_graph_def(graph_def, name=scope)`; empty for none.

    Raises:
      CheckpointError: the graph cannot be imported, or the checkpoint lacks a variable or is
        damaged.
      ToolError: the graph writes to its variables, cannot be cut where it is asked to, or is too
        large.
    """
    with config.limit.over(READING):
        meta, variables = _without_variables(plan, config.asset)
    fill_constants(meta.graph_def, plan.meta, variables)  # In its place: it may fill the memory.
    left = {node.name for node in meta.graph_def.node}
    inputs = {key: name for key, name in plan.inputs.items() if node_of(name) in left}
    prefix = f"{scope}/" if scope else ""
    _describe(meta, plan, inputs, prefix)
    if scope:
        _put_in_scope(meta.graph_def, prefix)
    return FrozenGraph(
        meta,
        {key: prefix + name for key, name in inputs.items()},
        {key: prefix + name for key, name in plan.outputs.items()},
        plan,
        prefix,
    )


def _without_variables(
    plan: FreezePlan, assets: Mapping[str, str]
) -> tuple[MetaGraphDef, Mapping[str, Variable]]:
    """The graph with all but the values, and the variables whose values its constants wait for."""
    meta, graph = plan.meta, plan.needed.graph_def
    cuts = {**dict.fromkeys(plan.inputs.values()), **plan.off}
    late = {name: v for name, v in cuts.items() if meta.nodes[node_of(name)].op in VARIABLE_OPS}
    _add_cuts(graph, plan.needed, {name: v for name, v in cuts.items() if name not in late})
    for name in late:  # What takes a variable takes its value only once that is a constant.
        if node_of(name) not in plan.needed.names:
            graph.node.add().CopyFrom(meta.nodes[node_of(name)])
            graph.node[-1].ClearField("device")
    copy = GraphDef()
    copy.CopyFrom(graph)
    import_disarmed(meta, copy)  # What follows takes the graph as sound.
    tables = _add_table_values(graph, meta, plan.fillings, assets)
    wanted = [*plan.outputs.values(), *(f"{name}:0" for name in tables)]
    variables = variables_of(graph, meta)
    graph = replace_variables(graph, variables, wanted, meta.path)
    for name in late:
        variables.pop(node_of(name), None)
    for node in [node for node in graph.node if f"{node.name}:0" in late]:
        graph.node.remove(node)
    _add_cuts(graph, plan.needed, late)
    fold(graph, wanted)
    frozen = MetaGraphDef(graph_def=graph)
    kept = sub_graph(MetaGraphFile(meta.path, meta.prefix, frozen), wanted).graph_def
    check_writers(kept, meta.path)
    frozen.graph_def.CopyFrom(kept)
    if tables:
        frozen.collection_def[TABLE_INITIALIZERS].node_list.value.extend(tables)
    return frozen, variables


def _add_cuts(graph: GraphDef, needed: SubGraph, cuts: Mapping[str, bool | float | None]) -> None:
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
    scope = f"{name}/{_CUT_SCOPE}"
    while any(node == scope or node.startswith(f"{scope}_") for node in needed.meta.nodes):
        scope += "_"
    last = max(outputs)
    for index, info in outputs.items():
        _add(graph, f"{scope}_{index}", info, None)
    passed = [index if index in outputs else last for index in range(last + 1)]
    node = graph.node.add(name=name, op="IdentityN")
    node.input.extend(f"{scope}_{index}" for index in passed)
    node.attr["T"].list.type.extend(outputs[index].dtype.as_datatype_enum for index in passed)


def _add_table_values(
    graph: GraphDef, meta: MetaGraphFile, fillings: Sequence[Filling], assets: Mapping[str, str]
) -> list[str]:
    """Adds what fills the lookup tables, as constants; returns the nodes to run for that.

    A table is no constant: each session has to fill it. predict.py does so by itself, as the
    collection `table_initializer` names the nodes; another client has to.

    Raises:
      CheckpointError: a file is not named, or is damaged; or no table takes an asset.
    """
    restoring = Restoring(meta, (), fillings, free_scope(meta, _TABLES_SCOPE))
    steps = restoring.steps(assets)
    graph.MergeFrom(restoring.graph_def)
    nodes = {node.name: node for node in graph.node}
    for step in steps:
        for tensor, value in step.feeds.items():
            node = nodes[node_of(tensor)]
            make_constant(node, value, node.attr["dtype"].type)
    return [name for step in steps for name in step.targets]


def _put_in_scope(graph: GraphDef, prefix: str) -> None:
    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [
            f"^{prefix}{text[1:]}" if text.startswith("^") else prefix + text for text in node.input
        ]


def _describe(meta: MetaGraphDef, plan: FreezePlan, inputs: Mapping[str, str], prefix: str) -> None:
    """Adds the signature and the collections, with `prefix` before all names in them."""
    names = [*inputs.values(), *plan.outputs.values()]
    infos = {info.name: info for info in describe_tensors(plan.meta, names)}
    signature = meta.signature_def[SIGNATURE]
    signature.method_name = tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
    for protos, by_key in ((signature.inputs, inputs), (signature.outputs, plan.outputs)):
        for key, name in by_key.items():
            protos[key].name = prefix + name
            protos[key].dtype = infos[name].dtype.as_datatype_enum
            protos[key].tensor_shape.CopyFrom(tf.TensorShape(infos[name].shape).as_proto())
    predict = [name for name in plan.model.predict if name in plan.outputs.values()]
    if predict:
        meta.collection_def[PREDICT_COLLECTION].node_list.value.extend(predict)
    for collection in meta.collection_def.values():
        collection.node_list.value[:] = [prefix + name for name in collection.node_list.value]
    for key in _KEPT:
        if key in plan.meta.proto.collection_def:
            meta.collection_def[key].CopyFrom(plan.meta.collection(key))
