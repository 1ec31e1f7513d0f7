"""A model and its checkpoint as one graph of constants, for inference, under the same names.

The graph is worked on as data: nothing of it runs. What fills its lookup tables comes with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
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
from metagraph.graph import sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import check_operations
from metagraph.session import describe_tensors
from metagraph.tables import Filling
from metagraph.values import Restoring, free_scope
from metagraph.variables import VARIABLE_OPS, Variable
from tools.folding import fold
from tools.freeze import PartConfig
from tools.freeze_plan import FreezePlan, add_cuts, plan_freeze
from tools.frozen_variables import check_writers, fill_constants, replace_variables, variables_of
from tools.graph_nodes import make_constant

TABLE_INITIALIZERS = "table_initializer"
_TABLES_SCOPE = "tables"
_READING = "reading the graph"
_KEPT = (
    CLASS_NAMES_COLLECTION,
    IMAGE_SHAPE_COLLECTION,
    INPUT_SCALE_COLLECTION,
    TRAINED_ON_COLLECTION,
)


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


def plan_of(meta: MetaGraphFile, config: PartConfig) -> FreezePlan:
    """What is to be frozen; values are not read, and nothing of the graph runs.

    Raises:
      CheckpointError: there is no such tensor, or an operation may do more than compute.
      ToolError: there is nothing to freeze.
    """
    with config.limit.over(_READING):
        plan = plan_freeze(meta, config.outputs, config.inputs, config.signature)
        check_operations(plan.needed.graph_def, meta.path, config.trust_graph)
    return plan


def freeze_plan(plan: FreezePlan, config: PartConfig, scope: str = "") -> FrozenGraph:
    """Freezes; no file is written, and nothing of the graph runs.

    Args:
      plan: what `plan_of` has told.
      config: the same as it took.
      scope: what all names of the result begin with, without the last `/`, as if it had been
        imported by `tf.import_graph_def(graph_def, name=scope)`; empty for none.

    Raises:
      CheckpointError: the graph cannot be imported, or the checkpoint lacks a variable or is
        damaged.
      ToolError: the graph writes to its variables, cannot be cut where it is asked to, or is too
        large.
    """
    with config.limit.over(_READING):
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
    add_cuts(graph, plan.needed, {name: v for name, v in cuts.items() if name not in late})
    for name in late:  # What takes a variable takes its value only once that is a constant.
        if name in plan.needed.feeds:
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
    add_cuts(graph, plan.needed, late)
    fold(graph, wanted)
    frozen = MetaGraphDef(graph_def=graph)
    kept = sub_graph(MetaGraphFile(meta.path, meta.prefix, frozen), wanted).graph_def
    check_writers(kept, meta.path)
    frozen.graph_def.CopyFrom(kept)
    if tables:
        frozen.collection_def[TABLE_INITIALIZERS].node_list.value.extend(tables)
    return frozen, variables


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
