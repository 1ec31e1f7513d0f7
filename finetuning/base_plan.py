"""Which part of a model is built on, told from the file alone: nothing is imported yet."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.lookup_tables import with_tables
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.op_check import check_operations, offenders
from checkpoints.loading.sub_graph import SubGraph, sub_graph
from checkpoints.loading.tensor_info import TensorInfo
from checkpoints.loading.variable_values import VARIABLE_OPS, Variable, variable_of
from finetuning.base_variables import initial_tensors
from finetuning.chosen_variables import excluded_by, in_scopes, is_in, trainable_in, variables_in
from finetuning.config import BaseRequest
from finetuning.control_flow import is_in_loop, pivots
from finetuning.switches import Setting, find_settings
from finetuning.writes import hold, written
from prediction.model import Model, read_model
from training.errors import TrainingError

STEP = "global_step"
UPDATES = "update_ops"


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
    tensor, model = _tensor(meta, request.tensor), read_model(meta)
    whole = sub_graph(meta, [tensor])
    rows = _rows(meta, tensor, whole, model)
    settings = _settings(meta, tensor, rows, request)
    cuts = [rows.name, *(setting.name for setting in settings), *_step(whole)]
    _check_tables(meta, tensor, cuts)
    trainable = trainable_in(meta, sub_graph(meta, [tensor], cuts))
    updates = _updates(meta, cuts, request)
    outputs = _with_pivots(meta, [tensor, *updates], cuts)
    variables = variables_in(meta, sub_graph(meta, outputs, cuts))
    initial = initial_tensors(meta, variables)
    excluded = excluded_by(variables, initial, request.exclude, meta)
    needed = sub_graph(meta, [*outputs, *initial.values()], cuts)
    return BasePlan(
        meta=meta,
        model=model,
        tensor=tensor,
        rows=rows,
        settings=settings,
        needed=needed,
        graph_def=_held(needed, variables, request),
        variables=variables,
        restored=tuple(name for name in variables if name not in excluded),
        exclude=request.exclude,
        trainable=frozenset(trainable),
        unfrozen=tuple(in_scopes(trainable, request.train_scopes, meta)),
        initial=initial,
        updates=tuple(updates),
    )


def _tensor(meta: MetaGraphFile, asked_for: str) -> str:
    """The full name of what the head takes."""
    tensor = meta.tensor_name(asked_for)
    if is_in_loop(meta, tensor):
        raise TrainingError(
            f"{tensor} of {meta.path} is inside of a loop; a head takes what comes out of it"
        )
    return tensor


def _settings(
    meta: MetaGraphFile, tensor: str, rows: TensorInfo, request: BaseRequest
) -> tuple[Setting, ...]:
    """What the part is told in training."""
    values, unfreezes = _training_values(meta, request), bool(request.train_scopes)
    needed = sub_graph(meta, [tensor], [rows.name])
    return tuple(find_settings(needed, rows.name, values, switched_on=unfreezes))


def _training_values(meta: MetaGraphFile, request: BaseRequest) -> dict[str, str]:
    """What --train_feed gives, by the names as they are written."""
    given: dict[str, str] = {}
    tensors: list[str] = []
    for name, _, value in (text.partition("=") for text in request.train_feed):
        given[name] = value
        tensors.append(meta.tensor_name(name))
        if tensors.count(tensors[-1]) > 1:
            raise TrainingError(f"--train_feed={name}: {tensors[-1]} is given twice")
    return given


def _with_pivots(meta: MetaGraphFile, outputs: list[str], cuts: list[str]) -> list[str]:
    """The outputs, and what gradients through them need of conditionals and loops.

    Unless that takes more than the outputs do.
    """
    more = [*outputs, *pivots(meta, sub_graph(meta, outputs, cuts))]
    return outputs if sub_graph(meta, more, cuts).unfed else more


def _held(needed: SubGraph, variables: Iterable[str], request: BaseRequest) -> GraphDef:
    """The nodes of a part that may run, and none that writes what is frozen."""
    check_operations(needed.graph_def, needed.meta.path, request.trust_graph)
    graph_def = GraphDef()
    graph_def.CopyFrom(needed.graph_def)
    hold(graph_def, {name for name in variables if is_in(name, request.train_scopes)})
    return graph_def


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
    """The global step, where a part takes one that the run can count up.

    Raises:
      TrainingError: something else has its name.
    """
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
