"""A model and its checkpoint as one graph of constants, for inference, under the same names.

What fills its lookup tables comes with it, as constants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

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
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.safety import TimeLimit, check_operations
from metagraph.session import describe_tensors
from metagraph.tables import Filling
from metagraph.values import Restoring, free_scope
from metagraph.variables import VARIABLE_OPS, Variable
from tools.edit_names import Names, rename
from tools.folding import fold
from tools.freeze_plan import FreezePlan, add_cuts, plan_freeze
from tools.frozen_variables import (
    check_writers,
    fill_constants,
    replace_variables,
    variables_of,
)
from tools.graph_nodes import make_constant

# Lookup tables of a frozen graph: what fills them comes with it, as constants.
#
# A table is no constant: it has to be filled in each session. The nodes that do so are kept, and
# the collection `table_initializer` names them; predict.py runs them by itself, another client has
# to.

TABLE_INITIALIZERS = "table_initializer"
_SCOPE = "tables"


def add_table_values(
    graph: GraphDef, meta: MetaGraphFile, fillings: Sequence[Filling], assets: Mapping[str, str]
) -> list[str]:
    """Adds what fills the tables of a graph; returns the nodes to run for that.

    Args:
      graph: what is needed of the file; nodes are added to it.
      meta: the file.
      fillings: of the tables of `graph`.
      assets: the files that tables are filled from, as `load_inference_graph` takes them.

    Raises:
      CheckpointError: a file is not named, or is damaged; or no table takes an asset.
    """
    restoring = Restoring(meta, (), fillings, free_scope(meta, _SCOPE))
    steps = restoring.steps(assets)
    graph.MergeFrom(restoring.graph_def)
    nodes = {node.name: node for node in graph.node}
    for step in steps:
        for tensor, value in step.feeds.items():
            node = nodes[node_of(tensor)]
            make_constant(node, value, node.attr["dtype"].type)
    return [name for step in steps for name in step.targets]


# A model and its checkpoint as one graph of constants, for inference, under the same names.
#
# The graph is worked on as data: nothing runs, the variables' values come straight from the
# checkpoint, and each is in memory once as it is read and once as it is kept. TensorFlow's own
# `tf.compat.v1.graph_util.convert_variables_to_constants` needs a session that holds all values,
# and leaves out what strangers' graphs have: references inside of loops, variables without the very
# node that it reads them by, lookups by row in functions, handles that a loop passes on.

_READING = "reading the graph"
_KEPT = (
    CLASS_NAMES_COLLECTION,
    IMAGE_SHAPE_COLLECTION,
    INPUT_SCALE_COLLECTION,
    TRAINED_ON_COLLECTION,
)


@dataclass(frozen=True)
class FreezeRequest:
    """What is asked for.

    Attributes:
      outputs: tensors, or keys of the signature; none for the collection `predict` and the
        signature's outputs.
      inputs: tensors, or keys of the signature, at which the graph is cut, beside its placeholders.
      signature: the one to use; None for `serving_default`, or else the only one.
      trust_graph: keep also operations that may do more than compute.
      assets: files that lookup tables are filled from, as `load_inference_graph` takes them.
      scope: what all names of the result begin with, without the `/`, as if it had been imported by
        `tf.import_graph_def(graph_def, name=scope)`; empty for none.
      time_limit: of what TensorFlow is made to do with the graph.
    """

    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    signature: str | None = None
    trust_graph: bool = False
    assets: Mapping[str, str] = field(default_factory=dict)
    scope: str = ""
    time_limit: TimeLimit = field(default_factory=TimeLimit)


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables.

    Attributes:
      meta: `graph_def`, with constants for variables and nothing but what the outputs need; the
        signature `serving_default` of `inputs` and `outputs`; the collections that predict.py
        uses, and `table_initializer`, the nodes that a session has to run first.
      inputs: signature key -> full tensor name, of what is still to be fed. Those without a key
        have the tensor's own name as theirs.
      outputs: likewise, of what is kept.
      plan: what was frozen, and what was switched off for it; by the original's names.
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


def plan_of(meta: MetaGraphFile, request: FreezeRequest) -> FreezePlan:
    """What is to be frozen; values are not read, and nothing of the graph runs.

    Raises:
      CheckpointError: there is no such tensor, or an operation may do more than compute.
      ToolError: there is nothing to freeze.
    """
    with request.time_limit.over(_READING):
        plan = plan_freeze(meta, request.outputs, request.inputs, request.signature)
        check_operations(plan.needed.graph_def, meta.path, request.trust_graph)
    return plan


def freeze_plan(plan: FreezePlan, request: FreezeRequest) -> FrozenGraph:
    """Freezes; no file is written, and nothing of the graph runs.

    Raises:
      CheckpointError: the graph cannot be imported, or the checkpoint lacks a variable or is
        damaged.
      ToolError: the graph writes to its variables, cannot be cut where it is asked to, or is too
        large.
    """
    with request.time_limit.over(_READING):
        frozen, variables = _without_variables(plan, request.assets)
        inputs = _inputs(frozen, plan)
        _describe(frozen, plan, inputs)
    fill_constants(frozen.graph_def, plan.meta, variables)
    return _in_scope(FrozenGraph(frozen, inputs, plan.outputs, plan), request.scope)


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
    tables = add_table_values(graph, meta, plan.fillings, assets)
    wanted = [*plan.outputs.values(), *(f"{name}:0" for name in tables)]
    variables = variables_of(graph, meta)
    constants = replace_variables(graph, variables, wanted, meta.path)
    for name in late:
        variables.pop(node_of(name), None)
    kept = [node for node in constants.node if f"{node.name}:0" not in late]
    frozen = MetaGraphDef(graph_def=GraphDef(node=kept))
    frozen.graph_def.library.CopyFrom(constants.library)
    frozen.graph_def.versions.CopyFrom(constants.versions)
    add_cuts(frozen.graph_def, plan.needed, late)
    fold(frozen.graph_def, wanted)
    described = MetaGraphDef(
        graph_def=sub_graph(MetaGraphFile(meta.path, meta.prefix, frozen), wanted).graph_def
    )
    check_writers(described.graph_def, meta.path)
    if tables:
        described.collection_def[TABLE_INITIALIZERS].node_list.value.extend(tables)
    return described, variables


def _inputs(frozen: MetaGraphDef, plan: FreezePlan) -> dict[str, str]:
    """Those of the plan's inputs that the graph still takes once it is folded."""
    left = {node.name for node in frozen.graph_def.node}
    return {key: name for key, name in plan.inputs.items() if node_of(name) in left}


def _describe(frozen: MetaGraphDef, plan: FreezePlan, inputs: Mapping[str, str]) -> None:
    """Adds the signature and the collections."""
    names = [*inputs.values(), *plan.outputs.values()]
    infos = {info.name: info for info in describe_tensors(plan.meta, names)}
    signature = frozen.signature_def[SIGNATURE]
    signature.method_name = tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
    for key, name in inputs.items():
        _set_info(signature.inputs[key], infos[name])
    for key, name in plan.outputs.items():
        _set_info(signature.outputs[key], infos[name])
    predict = [name for name in plan.model.predict if name in plan.outputs.values()]
    if predict:
        frozen.collection_def[PREDICT_COLLECTION].node_list.value.extend(predict)
    for key in _KEPT:
        if key in plan.meta.proto.collection_def:
            frozen.collection_def[key].CopyFrom(plan.meta.collection(key))


def _in_scope(frozen: FrozenGraph, scope: str) -> FrozenGraph:
    """Puts a scope before all names of a frozen graph, in place."""
    if not scope:
        return frozen
    names = Names({n.name: f"{scope}/{n.name}" for n in frozen.meta.graph_def.node}, {})
    rename(frozen.meta, names)
    inputs, outputs = (
        {key: names.of_node(name) for key, name in tensors.items()}
        for tensors in (frozen.inputs, frozen.outputs)
    )
    return FrozenGraph(frozen.meta, inputs, outputs, frozen.plan, f"{scope}/")


def _set_info(proto: TensorInfoProto, info: TensorInfo) -> None:
    """Fills the signature's entry of a tensor."""
    proto.name = info.name
    proto.dtype = info.dtype.as_datatype_enum
    proto.tensor_shape.CopyFrom(tf.TensorShape(info.shape).as_proto())
