"""Which part of a model is built on, told from the file alone: nothing is imported yet.

Also which of its variables are trained and which are restored, as variables of TensorFlow's own.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.variable_pb2 import VariableDef

from checkpoints.reader import CheckpointReader
from errors import CheckpointError, TrainingError, first_few
from finetuning.graph_changes import Setting, find_settings, hold, is_in_loop, pivots, written
from finetuning.settings import BaseRequest
from metagraph.graph import SubGraph, data_inputs, sub_graph
from metagraph.meta import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    TensorInfo,
    format_shape,
    node_of,
    variable_definitions,
)
from metagraph.model import Model, read_model
from metagraph.safety import PURE, check_operations, offenders
from metagraph.session import describe_tensors
from metagraph.tables import with_tables
from metagraph.variables import VARIABLE_OPS, Variable, trainable_names, variable_of

STEP = "global_step"
UPDATES = "update_ops"
_INPUTS = PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
_MAX_NAMED = 10


class BasePlan(NamedTuple):
    """A part of a model that can be imported and built on.

    Attributes:
      meta: the file.
      model: what it says of itself.
      tensor: what the head takes.
      rows: where the images go.
      settings: what it is told in training.
      needed: the part; it is cut at `rows`, at the settings and at the global step.
      graph_def: its nodes, none of which writes what is frozen.
      variables: of the part, by name.
      restored: those of them that are read from the checkpoint.
      exclude: as it was asked for.
      trainable: those of them that could be trained.
      unfrozen: those of them that are.
      initial: variable -> the tensor of its initial value, where the file has one.
      updates: what runs with each step, such as what follows the mean of the activations.
    """

    meta: MetaGraphFile
    model: Model
    tensor: str
    rows: TensorInfo
    settings: tuple[Setting, ...]
    needed: SubGraph
    graph_def: GraphDef
    variables: Mapping[str, Variable]
    restored: tuple[str, ...]
    exclude: str | None
    trainable: frozenset[str]
    unfrozen: tuple[str, ...]
    initial: Mapping[str, str]
    updates: tuple[str, ...]

    @property
    def step(self) -> Variable | None:
        """The global step that the part takes; None where it takes none."""
        if f"{STEP}:0" not in self.needed.feeds:
            return None
        return variable_of(self.meta, self.meta.nodes[STEP])

    @property
    def initial_nodes(self) -> frozenset[str]:
        """The nodes that initial values are computed by."""
        return sub_graph(self.meta, list(self.initial.values())).names


def plan_base(meta: MetaGraphFile, request: BaseRequest) -> BasePlan:
    """Finds the part, what is fed to it, and what becomes of its variables.

    Raises:
      CheckpointError: there is no such tensor, the graph is damaged, or it may do more than
        compute.
      TrainingError: the part needs what fine-tuning cannot give it, or the request does not fit.
    """
    tensor, model = meta.tensor_name(request.tensor), read_model(meta)
    if is_in_loop(meta, tensor):
        raise TrainingError(
            f"{tensor} of {meta.path} is inside of a loop; a head takes what comes out of it"
        )
    whole = sub_graph(meta, [tensor])
    rows = _rows(meta, tensor, whole, model)
    settings = find_settings(
        sub_graph(meta, [tensor], [rows.name]),
        rows.name,
        request.train_feed,
        switched_on=bool(request.train_scopes),
    )
    cuts = [rows.name, *(setting.name for setting in settings), *_step(whole)]
    _check_tables(meta, tensor, cuts)
    trainable = _trainable(meta, sub_graph(meta, [tensor], cuts))
    updates = _updates(meta, cuts, request)
    outputs = _with_pivots(meta, [tensor, *updates], cuts)
    variables = _variables(meta, sub_graph(meta, outputs, cuts))
    initial = _initial_tensors(meta, variables)
    excluded = _excluded(variables, initial, request.exclude, meta)
    needed = sub_graph(meta, [*outputs, *initial.values()], cuts)
    check_operations(needed.graph_def, meta.path, request.trust_graph)
    graph_def = GraphDef()
    graph_def.CopyFrom(needed.graph_def)
    hold(graph_def, {name for name in variables if is_in(name, request.train_scopes)})
    return BasePlan(
        meta=meta,
        model=model,
        tensor=tensor,
        rows=rows,
        settings=tuple(settings),
        needed=needed,
        graph_def=graph_def,
        variables=variables,
        restored=tuple(name for name in variables if name not in excluded),
        exclude=request.exclude,
        trainable=frozenset(trainable),
        unfrozen=tuple(_in_scopes(trainable, request.train_scopes, meta)),
        initial=initial,
        updates=tuple(updates),
    )


def _rows(meta: MetaGraphFile, tensor: str, needed: SubGraph, model: Model) -> TensorInfo:
    """The tensor that images go to: the signature's input, or the one placeholder for an array."""
    signature = [name for name in model.inputs.values() if node_of(name) in needed.names]
    if len(signature) == 1:
        return describe_tensors(meta, signature)[0]
    found = [info for info in describe_tensors(meta, needed.unfed) if info.shape != ()]
    if len(found) == 1:
        return found[0]
    named = ", ".join(str(info) for info in found) or "none"
    raise TrainingError(
        f"{tensor} of {meta.path} is to follow from one placeholder, which the images go to; "
        f"found {named}"
    )


def _step(needed: SubGraph) -> list[str]:
    """The global step, where a part takes one that the run can count up."""
    if STEP not in needed.names:
        return []
    meta, node = needed.meta, needed.meta.nodes[STEP]
    if node.op in VARIABLE_OPS:
        step = variable_of(meta, node)
        if step.dtype in (tf.int32, tf.int64) and step.shape.rank in (0, None):
            return [f"{STEP}:0"]
    raise TrainingError(
        f"{meta.path} has a node {STEP} that is no integer variable, and the run counts its steps "
        "in one of that name"
    )


def _check_tables(meta: MetaGraphFile, tensor: str, cuts: Iterable[str]) -> None:
    _, fillings = with_tables(meta, [tensor], list(cuts))
    if fillings:
        tables = ", ".join(filling.table for filling in fillings)
        raise TrainingError(
            f"{tensor} of {meta.path} needs the lookup table {tables}, which a checkpoint of a "
            "fine-tuned model would not hold"
        )


def _with_pivots(meta: MetaGraphFile, outputs: list[str], cuts: list[str]) -> list[str]:
    """The outputs, and what gradients through them need of conditionals and loops.

    Unless that takes more than the outputs do.
    """
    more = [*outputs, *pivots(meta, sub_graph(meta, outputs, cuts))]
    return outputs if sub_graph(meta, more, cuts).unfed else more


def _updates(meta: MetaGraphFile, cuts: list[str], request: BaseRequest) -> list[str]:
    """Those of the file's update operations that write variables of the scopes.

    One that needs more than the images, or may do more than compute, is left out with a warning.
    """
    found = []
    for text in meta.collection(UPDATES).node_list.value:
        name = meta.find_tensor(text)
        if name is None:
            continue
        part = sub_graph(meta, [name], cuts)
        targets = {written(meta.nodes, node) for node in part.names} - {None}
        if not any(is_in(target, request.train_scopes) for target in targets if target):
            continue
        if part.unfed or any(offenders(part.graph_def)):
            logging.warning("%s does not run in training: it needs more than the images", text)
            continue
        found.append(name)
    return found


# Which variables of a base are trained, and which are restored.


def _variables(meta: MetaGraphFile, needed: SubGraph) -> dict[str, Variable]:
    """The variables of a part; TrainingError where one has no known shape, or holds strings."""
    found = {}
    for name, node in meta.nodes.items():
        if name in needed.names and node.op in VARIABLE_OPS:
            variable = variable_of(meta, node)
            if node.op == "Variable" and variable.shape.rank is None:
                # It cannot tell a scalar from a shape that is not known: the values will tell.
                variable = variable._replace(shape=tf.TensorShape([]))
            if not variable.shape.is_fully_defined() or variable.dtype == tf.string:
                raise TrainingError(
                    f"{name} of {meta.path} cannot be fine-tuned with: it is a variable of "
                    f"{variable.dtype.name} {format_shape(variable.shape)}"
                )
            found[name] = variable
    return found


def _trainable(meta: MetaGraphFile, forward: SubGraph) -> list[str]:
    """The variables of a part that could be trained; where the file tells of none, all numbers."""
    told = trainable_names(meta)
    return [
        name
        for name, variable in _variables(meta, forward).items()
        if variable.dtype.is_floating and (name in told or not told)
    ]


def _in_scopes(trainable: list[str], scopes: tuple[str, ...], meta: MetaGraphFile) -> list[str]:
    """Those of the variables that are in the scopes; TrainingError where one has none."""
    for scope in scopes:
        if not any(is_in(name, (scope,)) for name in trainable):
            known = list(dict.fromkeys(name.rpartition("/")[0] or name for name in trainable))
            raise TrainingError(
                f"--train_scopes={scope}: the part of {meta.path} that is taken has no variable to "
                f"train there; it has {first_few(known, _MAX_NAMED) if known else 'none at all'}"
            )
    return [name for name in trainable if is_in(name, scopes)]


def is_in(name: str, scopes: tuple[str, ...]) -> bool:
    """Whether a variable is in one of the scopes, or is named by one."""
    return any(name == scope or name.startswith(f"{scope.rstrip('/')}/") for scope in scopes)


def _excluded(
    variables: Mapping[str, Variable],
    initial: Mapping[str, str],
    pattern: str | None,
    meta: MetaGraphFile,
) -> set[str]:
    """The variables that are not restored."""
    if pattern is None:
        return set()
    found = {name for name in variables if re.fullmatch(pattern, name)}
    held = CheckpointReader(meta.prefix).shapes if variables and not found else ()
    if not found and not any(re.fullmatch(pattern, key) for key in held):
        raise TrainingError(
            f"--exclude={pattern}: it matches none of the variables that are taken from "
            f"{meta.path}: {first_few(list(variables), _MAX_NAMED)}"
        )
    unknown = sorted(name for name in found if name not in initial)
    if unknown:
        raise CheckpointError(
            f"--exclude={pattern}: {meta.path} has no initial value of "
            f"{first_few(unknown, _MAX_NAMED)} that stands alone"
        )
    return found


def _initial_tensors(meta: MetaGraphFile, variables: Collection[str]) -> dict[str, str]:
    """Variable -> the tensor of its initial value in the file.

    Left out are those that no collection tells of, and those whose initial value does not follow
    from constants and random numbers alone.
    """
    found: dict[str, str] = {}
    for collection in meta.proto.collection_def:
        for name, entry in variable_definitions(meta, collection):
            if name in variables and name not in found:
                tensor = _initial_tensor(meta, entry)
                if tensor is not None and _stands_alone(meta, tensor):
                    found[name] = tensor
    return found


def _initial_tensor(meta: MetaGraphFile, entry: VariableDef) -> str | None:
    """What a variable is assigned by its initializer."""
    if entry.initial_value_name:
        return meta.find_tensor(entry.initial_value_name)
    node = meta.nodes.get(entry.initializer_name)
    inputs = data_inputs(node) if node is not None else []
    return meta.find_tensor(inputs[1]) if len(inputs) == 2 else None


def _stands_alone(meta: MetaGraphFile, tensor: str) -> bool:
    operations = {meta.nodes[name].op for name in sub_graph(meta, [tensor]).names}
    return operations <= PURE and not operations & (VARIABLE_OPS | _INPUTS)


def adopt(
    node: tf.Operation, initial: tf.Tensor | None, scope: str, *, trainable: bool
) -> tf.Variable:
    """Makes a variable of TensorFlow's own, which can be trained and saved, of an imported node.

    The operations that give it a value and read it are ours. It goes into the graph's collections.

    Args:
      node: of the operation VariableV2 or VarHandleOp, its shape known.
      initial: its initial value; without, its initializer gives NaN, or 0 to integers: it is to be
        restored.
      scope: of what is added.
      trainable: whether it goes into the collection of trainable variables, too.
    """
    is_resource = node.outputs[0].dtype == tf.resource
    dtype = tf.as_dtype(node.get_attr("dtype")).base_dtype
    shape = tf.TensorShape(node.get_attr("shape"))
    with tf.compat.v1.name_scope(f"{scope}/"):
        if initial is None:
            nothing = np.nan if dtype.is_floating or dtype.is_complex else 0
            initial = tf.fill(shape.as_list(), tf.constant(nothing, dtype))
        value = tf.identity(initial)  # A tensor of its own: whoever assigns a variable feeds it.
        if is_resource:
            assign = tf.raw_ops.AssignVariableOp(resource=node.outputs[0], value=value)
            read = tf.raw_ops.ReadVariableOp(resource=node.outputs[0], dtype=dtype)
        else:
            assign = tf.raw_ops.Assign(ref=node.outputs[0], value=value).op
            read = tf.identity(node.outputs[0])
    definition = VariableDef(
        variable_name=node.outputs[0].name,
        initial_value_name=value.name,
        initializer_name=assign.name,
        snapshot_name=read.name,
        is_resource=is_resource,
        trainable=trainable,
    )
    variable = tf.compat.v1.Variable(variable_def=definition, use_resource=is_resource)
    keys = [tf.compat.v1.GraphKeys.GLOBAL_VARIABLES]
    keys += [tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES] if trainable else []
    node.graph.add_to_collections(keys, variable)
    return variable
