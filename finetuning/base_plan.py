"""Which part of a model is built on, and what becomes of it, told from its file: none is run."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from errors import CheckpointError, TrainingError, first_few
from finetuning import BaseRequest
from metagraph.description import Model, TensorInfo, format_shape
from metagraph.graph import SubGraph, data_inputs, remake, sub_graph, waits
from metagraph.meta import INPUT_OPS, PLACEHOLDERS, MetaGraphFile, node_of
from metagraph.model import handed_out, read_model
from metagraph.safety import check_operations, offenders
from metagraph.session import describe_tensors
from metagraph.tables import with_tables
from metagraph.usage import Role, RoleFinder, off_value
from metagraph.variables import (
    VARIABLE_OPS,
    Variable,
    initial_tensors,
    trainable_names,
    variable_of,
)
from prediction.plan import Feed, feed_value

STEP = "global_step"
_UPDATES = "update_ops"
_MAX_NAMED = 10
_FREEZE = "Build on what tools.freeze cuts with --inputs at {}"


class Setting(NamedTuple):
    """A value that the graph is given in training beside its images, and the one otherwise."""

    name: str
    dtype: tf.DType
    role: Role
    training: Any
    otherwise: Any

    def __str__(self) -> str:
        """As in the log: `keep_prob:0 (the share that a dropout keeps) 0.5, otherwise 1.0`."""
        training, otherwise = (np.asarray(v).tolist() for v in (self.training, self.otherwise))
        return f"{self.name} ({self.role.value}) {training}, otherwise {otherwise}"


class BasePlan(NamedTuple):
    """A part of a model that can be imported and built on."""

    meta: MetaGraphFile
    model: Model
    tensor: str  # What the head takes.
    rows: TensorInfo  # Where the images go.
    settings: tuple[Setting, ...]
    needed: SubGraph  # The part; it is cut at `rows`, at the settings and at the global step.
    graph_def: GraphDef  # Its nodes, none of which writes what is frozen.
    variables: Mapping[str, Variable]  # Of the part, by name.
    restored: tuple[str, ...]  # Those of them that are read from the checkpoint.
    trainable: frozenset[str]  # Those of them that could be trained.
    unfrozen: tuple[str, ...]  # Those of them that are.
    initial: Mapping[str, str]  # Variable -> the tensor of its initial value, where it has one.
    updates: tuple[str, ...]  # What runs with each step, such as what follows a mean.

    @property
    def step(self) -> Variable | None:
        """The global step that the part takes; None where it takes none."""
        if f"{STEP}:0" not in self.needed.feeds:
            return None
        return variable_of(self.meta, self.meta.nodes[STEP])


def plan_base(meta: MetaGraphFile, request: BaseRequest, model: Model | None = None) -> BasePlan:
    """Finds the part, what is fed to it, and what becomes of its variables.

    Raises:
      CheckpointError: there is no such tensor, or the graph is damaged or not to be trusted.
      PredictionError, TrainingError: the part needs more than it can get, or a flag does not fit.
    """
    tensor, model = meta.tensor_name(request.tensor), model or read_model(meta)
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
    updates = _updates(meta, cuts, request)
    variables = _variables(meta, sub_graph(meta, [tensor, *updates], cuts))
    forward, told = sub_graph(meta, [tensor], cuts), trainable_names(meta)
    trainable = [
        name
        for name, variable in variables.items()
        if name in forward.names and variable.dtype.is_floating and (name in told or not told)
    ]
    initial = initial_tensors(meta, variables)
    excluded = _excluded(variables, initial, request.exclude, meta)
    needed = sub_graph(meta, [tensor, *updates, *initial.values()], cuts)
    check_operations(needed.graph_def, meta.path, request.trust_graph, _FREEZE)
    graph_def = GraphDef()
    graph_def.CopyFrom(needed.graph_def)
    _hold(graph_def, {name for name in variables if is_in(name, request.train_scopes)})
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
        trainable=frozenset(trainable),
        unfrozen=tuple(_in_scopes(trainable, request.train_scopes, meta)),
        initial=initial,
        updates=tuple(updates),
    )


def _rows(meta: MetaGraphFile, tensor: str, needed: SubGraph, model: Model) -> TensorInfo:
    """The tensor that images go to: the signature's input, or what alone else has to be fed."""
    signature = [name for name in model.inputs.values() if node_of(name) in needed.names]
    if len(signature) == 1:
        return describe_tensors(meta, signature)[0]
    handed = handed_out(meta, [tensor], (), by_all=True)
    unfed = [*sub_graph(meta, [tensor], handed).unfed, *handed]
    found = [info for info in describe_tensors(meta, unfed) if info.shape != ()]
    if len(found) == 1:
        return found[0]
    named = ", ".join(str(info) for info in found) or "none"
    raise TrainingError(
        f"{tensor} of {meta.path} is to follow from one placeholder, queue or iterator, which the "
        f"images go to; found {named}: build on what tools.freeze --fetch={tensor} --inputs=... "
        "cuts at one"
    )


def _step(needed: SubGraph) -> list[str]:
    """The global step, where a part takes one that the run can count up."""
    if STEP not in needed.names:
        return []
    meta, node = needed.meta, needed.meta.nodes[STEP]
    if node.op in VARIABLE_OPS:
        step = variable_of(meta, node)
        if step.dtype in (tf.int32, tf.int64) and not step.shape:
            return [f"{STEP}:0"]
    raise TrainingError(
        f"{meta.path} has a node {STEP} that is no integer variable, and the run counts its steps "
        "in one of that name"
    )


def _check_tables(meta: MetaGraphFile, tensor: str, cuts: list[str]) -> None:
    _, fillings = with_tables(meta, [tensor], cuts)
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
    for text in meta.collection(_UPDATES).node_list.value:
        name = meta.find_tensor(text)
        if name is None:
            continue
        part = sub_graph(meta, [name], cuts)
        targets = {_written(meta.nodes, node) for node in part.names}
        if not any(target and is_in(target, request.train_scopes) for target in targets):
            continue
        if part.unfed or any(offenders(part.graph_def)):
            logging.warning("%s does not run in training: it needs more than the images", text)
            continue
        found.append(name)
    return found


# What the part is given in training beside its images. `metagraph.session` finds what it decides.

_KEPT = 0.5  # In training, of the units of a dropout.


def find_settings(
    needed: SubGraph, rows: str, given: Sequence[str], *, switched_on: bool
) -> list[Setting]:
    """The settings among the placeholders of what the features need, but for `rows`, the images.

    `given` are `name=value` of --train_feed, for training. With `switched_on`, switches say then
    that it is training. PredictionError or TrainingError says which value is missing, or does not
    fit.
    """
    meta, feeds = needed.meta, _train_feeds(needed.meta, given)
    names = [f"{name}:0" for name, node in meta.nodes.items() if node.op in INPUT_OPS]
    names = [name for name in names if node_of(name) in needed.names and name != rows]
    found, finder = [], RoleFinder(needed)
    for info in describe_tensors(meta, names) if names else ():
        role, feed = finder.role(info), feeds.get(info.name)
        value = None if feed is None else feed_value(feed, info)
        if role is not None:
            found.append(_known(info, role, value, switched_on))
        elif value is not None:
            found.append(Setting(info.name, info.dtype, Role.OTHER, value, value))
        elif meta.nodes[node_of(info.name)].op in PLACEHOLDERS:
            raise TrainingError(
                f"{meta.path} takes {info} beside its images: give its value with "
                f"--train_feed={node_of(info.name)}=..."
            )
    taken = [setting.name for setting in found]
    unknown = [feed.source for name, feed in feeds.items() if name not in taken]
    if unknown:
        known = f"it has {', '.join(taken)}" if taken else "there is none"
        raise TrainingError(
            f"{unknown[0]}: the part of {meta.path} that is taken has no such setting; {known}"
        )
    return found


def _train_feeds(meta: MetaGraphFile, given: Sequence[str]) -> dict[str, Feed]:
    feeds: dict[str, Feed] = {}
    for text in given:
        name, _, value = text.partition("=")
        tensor = meta.tensor_name(name)
        if tensor in feeds:
            raise TrainingError(f"--train_feed={name}: {tensor} is given twice")
        feeds[tensor] = Feed(name, f"--train_feed={text}", value)
    return feeds


def _known(info: TensorInfo, role: Role, given: Any | None, switched_on: bool) -> Setting:
    """The setting of a known role; a value that is given goes before all."""
    otherwise = off_value(info.name, role)
    training = given
    if given is None:
        training = switched_on != otherwise if role is Role.SWITCH else _KEPT
    elif role is not Role.SWITCH:
        kept = given if role is Role.KEEP else 1.0 - given
        if not np.all((kept > 0) & (kept <= 1)):
            raise TrainingError(
                f"--train_feed={node_of(info.name)}={given}: it is {role.value}; expected one "
                "from 0 to 1 that leaves something"
            )
    return Setting(info.name, info.dtype, role, training, otherwise)


# Which variables of a base are trained, and which are restored.


def _variables(meta: MetaGraphFile, needed: SubGraph) -> dict[str, Variable]:
    """The variables of a part; TrainingError where one has no known shape, or holds strings."""
    found = {}
    for name, node in meta.nodes.items():
        if name in needed.names and node.op in VARIABLE_OPS:
            variable = variable_of(meta, node)
            if node.op == "Variable" and variable.shape is None:
                # It cannot tell a scalar from a shape that is not known: the values will tell.
                variable = variable._replace(shape=())
            if not variable.is_defined or variable.dtype == tf.string:
                raise TrainingError(
                    f"{name} of {meta.path} cannot be fine-tuned with: it is a variable of "
                    f"{variable.dtype.name} {format_shape(variable.shape)}"
                )
            found[name] = variable
    return found


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
    if not found:
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


# Where a graph writes its own variables while it computes, such as moving averages.
#
# A part that is frozen stays as it is: what would write it is put out of action. An operation that
# writes through a reference gives that reference; in its place stands one that only passes it on.
# One that writes through a handle gives nothing; in its place stands one that does nothing.

_BY_HANDLE = re.compile(r"Assign\w*VariableOp|Resource(Apply|Scatter|SparseApply)\w*")
_BY_REFERENCE = re.compile(
    r"(Assign|Apply|SparseApply)\w*|Scatter(Nd)?(Add|Div|Max|Min|Mul|Sub|Update)"
)
_PASS_ON = frozenset({"Enter", "Identity", "RefEnter", "RefIdentity", "RefSwitch", "Switch"})


def _written(nodes: Mapping[str, NodeDef], name: str) -> str | None:
    """The variable that a node writes; None where it writes none, or nobody can tell which."""
    node = nodes[name]
    if not (_BY_HANDLE.fullmatch(node.op) or _BY_REFERENCE.fullmatch(node.op)):
        return None
    for _ in range(len(nodes)):
        inputs = data_inputs(node)
        if not inputs or node_of(inputs[0]) not in nodes:
            return None
        node = nodes[node_of(inputs[0])]
        if node.op in VARIABLE_OPS:
            return str(node.name)
        if node.op not in _PASS_ON:
            return None
    return None


def _hold(graph_def: GraphDef, free: Collection[str]) -> None:
    """Puts out of action, in place, what writes any other variable than those of `free`.

    What a library function writes is held in any case: its variables are arguments.
    """
    nodes = {node.name: node for node in graph_def.node}
    held = [node for name, node in nodes.items() if _written(nodes, name) not in free]
    held += [node for function in graph_def.library.function for node in function.node_def]
    for node in held:
        data, waited_for = data_inputs(node), waits(node)
        if _BY_HANDLE.fullmatch(node.op):
            remake(node, "NoOp", waited_for, {})
        elif _BY_REFERENCE.fullmatch(node.op) and data:
            remake(node, "RefIdentity", [data[0], *waited_for], {"T": node.attr["T"].type})
