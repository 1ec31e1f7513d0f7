"""A model and its checkpoint as one graph of constants, for inference, under the same names.

What fills its lookup tables comes with it, as constants.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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
from errors import ToolError, first_few
from metagraph.graph import nodes_by_op, sub_graph
from metagraph.importing import import_disarmed
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.safety import TimeLimit, check_operations
from metagraph.session import describe_tensors
from metagraph.tables import Filling
from metagraph.values import Restoring, free_scope
from metagraph.variables import RESOURCE_VARIABLE, VARIABLE_OPS, Variable, read_values, variable_of
from tools.edit_names import Names, rename
from tools.folding import fold
from tools.freeze_plan import FreezePlan, add_cuts, plan_freeze
from tools.frozen_variables import Handles, replace_references
from tools.graph_nodes import fill_constant, make_constant, remake

# Variables of a graph become constants, and what takes them by reference or handle, their values.
#
# A variable is replaced where it stands, so that its name is that of its value. Loops, conditionals
# and functions may pass on references (to a `VariableV2`) or handles (of a `VarHandleOp`); they
# pass on the value from then on.

_MOST_BYTES = 2**31 - 1  # Of one protobuf message.
_SHOWN = 3


class Replaced(NamedTuple):
    """What has become of the variables of a graph.

    Attributes:
      variables: by name; a constant of that name waits for the value.
      writers: nodes that take a variable itself, those of functions as `function/node`.
    """

    variables: Mapping[str, Variable]
    writers: Collection[str]


def replace_variables(graph: GraphDef, meta: MetaGraphFile, fed: Collection[str]) -> Replaced:
    """Replaces them by constants that have no values yet.

    What changes a variable stays as it is: see `check_writers`, for what is still there once
    the graph is folded.

    Args:
      graph: a part of the file's graph; changed in place.
      meta: the file.
      fed: nodes in whose place there is by now a placeholder or a constant.

    Raises:
      CheckpointError: a variable is damaged.
    """
    found = {node.name: variable_of(meta, node) for node in graph.node if node.op in VARIABLE_OPS}
    for node in graph.node:
        if node.name in found:
            remake(node, "Const", (), {"dtype": found[node.name].dtype.as_datatype_enum})
    nodes = [meta.nodes[n] for n in {*found, *fed} if meta.nodes[n].op in VARIABLE_OPS]
    dtypes = {n.name: variable_of(meta, n).dtype.as_datatype_enum for n in nodes}
    handles = {node.name for node in nodes if node.op == RESOURCE_VARIABLE}
    writers = replace_references(graph, dtypes.keys() - handles)
    replacing = Handles(graph)
    replacing.replace({name: dtypes[name] for name in handles})
    return Replaced(found, {*writers, *replacing.writers})


def check_writers(graph: GraphDef, writers: Collection[str], path: str) -> None:
    """Sees that a graph takes no variable but to read it.

    Args:
      graph: the one that is kept.
      writers: as of `Replaced`.
      path: of the file.

    Raises:
      ToolError: it writes to one; or does something else with it that a constant cannot do.
    """
    found = [
        f"{name} ({op})"
        for op, names in nodes_by_op(graph).items()
        for name in names
        if name in writers
    ]
    if found:
        raise ToolError(
            f"{path} cannot be frozen: its outputs need {first_few(found, _SHOWN)}, which changes "
            "a variable or does not just read it, and a frozen graph has none; name other --outputs"
        )


def fill_constants(graph: GraphDef, meta: MetaGraphFile, variables: Mapping[str, Variable]) -> None:
    """Gives the constants their values; each value is freed once it is in the graph.

    Args:
      graph: changed in place; what has become of some of `variables` may be gone.
      meta: the file.
      variables: as of `Replaced`.

    Raises:
      CheckpointError: the checkpoint lacks a variable or is damaged.
      ToolError: the graph would be larger than a protobuf message can be.
    """
    nodes = [node for node in graph.node if node.name in variables]
    values = read_values(meta, [variables[node.name] for node in nodes])
    size = graph.ByteSize() + sum(value.nbytes for value in values.values())
    if size > _MOST_BYTES:
        raise ToolError(
            f"{meta.path} with its variables takes {size} bytes, and a file of one graph holds at "
            f"most {_MOST_BYTES}: keep fewer --outputs, or export a SavedModel, whose variables "
            "are in files of their own"
        )
    for node in nodes:
        fill_constant(node, values.pop(node.name))


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
    meta, frozen = plan.meta, MetaGraphDef(graph_def=plan.needed.graph_def)
    graph = frozen.graph_def
    add_cuts(graph, plan.needed, [*plan.inputs.values()], plan.off)
    _check_importable(meta, graph)
    tables = add_table_values(graph, meta, plan.fillings, assets)
    wanted = [*plan.outputs.values(), *(f"{name}:0" for name in tables)]
    replaced = replace_variables(graph, meta, [node_of(name) for name in plan.feeds])
    fold(graph, wanted)
    kept = sub_graph(MetaGraphFile(meta.path, meta.prefix, frozen), wanted).graph_def
    check_writers(kept, replaced.writers, meta.path)
    described = MetaGraphDef(graph_def=kept)
    if tables:
        described.collection_def[TABLE_INITIALIZERS].node_list.value.extend(tables)
    return described, replaced.variables


def _check_importable(meta: MetaGraphFile, graph: GraphDef) -> None:
    """Raises CheckpointError where the graph is damaged: what follows takes it as sound."""
    copy = GraphDef()
    copy.CopyFrom(graph)
    for node in copy.node:  # What takes a variable that is fed takes no value yet.
        if node.name in meta.nodes and meta.nodes[node.name].op in VARIABLE_OPS:
            node.CopyFrom(meta.nodes[node.name])
            node.ClearField("device")
    import_disarmed(meta, copy)


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
