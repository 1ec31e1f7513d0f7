"""What training needs changed in the graph of a model that is built on.

Conditionals and loops as TensorFlow 1 made them get what a gradient through them needs, switches
are told training from prediction, and the graph's own writes to its variables are found.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.control_flow_pb2 import (
    CondContextDef,
    ControlFlowContextDef,
    WhileContextDef,
)
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from errors import TrainingError
from metagraph.graph import SubGraph, attribute_of, data_inputs
from metagraph.meta import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    TensorInfo,
    node_of,
)
from metagraph.session import describe_tensors
from metagraph.switches import Role, RoleFinder, off_value
from metagraph.variables import VARIABLE_OPS

# Conditionals and loops as TensorFlow 1 made them: what a gradient through them needs.
#
# They are no functions but operations (Switch, Merge, Enter, Exit, NextIteration) among all others.
# Which of those make up a conditional or a loop stands in two collections of the meta graph, and
# nowhere else; without, no gradient passes a loop, nor a variable that is read in a branch.
#
# Format: `tensorflow/core/protobuf/control_flow.proto`.

OLD_CONTROL_FLOW = frozenset(
    {"Enter", "Exit", "Merge", "NextIteration", "RefEnter", "RefExit", "RefMerge"}
    | {"RefNextIteration", "RefSwitch", "Switch"}
)
_Context: TypeAlias = CondContextDef | WhileContextDef
_KINDS: dict[str, type[_Context]] = {
    "cond_context": CondContextDef,
    "while_context": WhileContextDef,
}
# With any saver at hand, TensorFlow does not make one for the variables that there are.
_NO_SAVER = SaverDef(filename_tensor_name="none:0", save_tensor_name="none:0", restore_op_name="n")


def pivots(meta: MetaGraphFile, part: SubGraph) -> list[str]:
    """What the conditionals and loops of a part hold on to, and the part itself may not need.

    These are the branch that is taken, and the condition of a loop, as tensors of the file.
    """
    found: dict[str, None] = {}
    for context in _all_contexts(meta):
        if any(node_of(name) in part.names for name in context.values_def.values):
            found |= dict.fromkeys(_held_by(context))
    return [name for name in found if node_of(name) in meta.nodes]


def is_in_loop(meta: MetaGraphFile, tensor: str) -> bool:
    """Whether a tensor has a value in each round of a loop, and none outside of it."""
    return any(
        tensor in context.values_def.values
        and tensor not in context.values_def.external_values
        and tensor not in context.loop_exit_names
        for context in _all_contexts(meta)
        if isinstance(context, WhileContextDef)
    )


def add_contexts(meta: MetaGraphFile) -> None:
    """Tells the default graph of the conditionals and loops of the nodes that it has of the file.

    What is damaged is left out with a warning: it may not be needed.
    """
    told, graph = MetaGraphDef(saver_def=_NO_SAVER), tf.compat.v1.get_default_graph()
    for key, context in _contexts(meta):
        if _cut_to(graph, context):
            content = context.SerializeToString()
            told.collection_def[key].bytes_list.value.append(content)
    if not told.collection_def:
        return
    try:
        tf.compat.v1.train.import_meta_graph(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logging.warning("%s: its conditionals and loops are damaged: %s", meta.path, error)


def _contexts(meta: MetaGraphFile) -> Iterator[tuple[str, _Context]]:
    """The outermost contexts of the file, each with the key of its collection."""
    for key, kind in _KINDS.items():
        for content in meta.collection(key).bytes_list.value:
            try:
                yield key, kind.FromString(content)
            except DecodeError:
                continue  # Anything may be in a collection.


def _all_contexts(meta: MetaGraphFile) -> Iterator[_Context]:
    """The contexts of the file, each before those in it."""
    waiting = [context for _, context in _contexts(meta)][::-1]
    while waiting:
        context = waiting.pop()
        yield context
        inner = (_inner(nested) for nested in context.nested_contexts)
        waiting += [found for found in inner if found is not None][::-1]


def _inner(nested: ControlFlowContextDef) -> _Context | None:
    kind = nested.WhichOneof("ctxt")
    return getattr(nested, kind) if kind else None


def _held_by(context: _Context) -> list[str]:
    """The tensors without which TensorFlow does not take a context."""
    if isinstance(context, CondContextDef):
        return [context.pred_name, context.pivot_name]
    return [context.pivot_for_pred_name, context.pivot_for_body_name, context.pivot_name]


def _cut_to(graph: tf.Graph, context: _Context) -> bool:
    """Leaves out, in place, what a graph does not have; whether that left a context."""
    if not all(_has(graph, name) for name in _held_by(context)):
        return False
    values, outside = context.values_def, dict(context.values_def.external_values)
    kept = [name for name in values.values if _has(graph, outside.get(name, name))]
    values.values[:] = kept
    values.external_values.clear()
    values.external_values.update({name: outside[name] for name in kept if name in outside})
    if isinstance(context, WhileContextDef):
        for names in (context.loop_enter_names, context.loop_exit_names):
            names[:] = [name for name in names if _has(graph, name)]
    for index in reversed(range(len(context.nested_contexts))):
        inner = _inner(context.nested_contexts[index])
        if inner is None or not _cut_to(graph, inner):
            del context.nested_contexts[index]
    return True


def _has(graph: tf.Graph, name: str) -> bool:
    try:
        graph.as_graph_element(name)
    except (KeyError, ValueError):
        return False
    return True


# Where a graph writes its own variables while it computes, such as moving averages.
#
# A part that is frozen stays as it is: what would write it is put out of action. An operation that
# writes through a reference gives that reference; in its place stands one that only passes it on.
# One that writes through a handle gives nothing; in its place stands one that does nothing.

_BY_REFERENCE = ("Assign", "Apply", "SparseApply")
_SCATTERS = frozenset(
    f"Scatter{kind}" for kind in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Update")
) | frozenset(f"ScatterNd{kind}" for kind in ("Add", "Max", "Min", "Sub", "Update"))
_BY_HANDLE = ("ResourceApply", "ResourceScatter", "ResourceSparseApply")
_PASS_ON = frozenset({"Enter", "Identity", "RefEnter", "RefIdentity", "RefSwitch", "Switch"})


def _writes_by_handle(node: NodeDef) -> bool:
    op = str(node.op)
    return (op.startswith("Assign") and op.endswith("VariableOp")) or op.startswith(_BY_HANDLE)


def _writes_by_reference(node: NodeDef) -> bool:
    return not _writes_by_handle(node) and (
        node.op in _SCATTERS or str(node.op).startswith(_BY_REFERENCE)
    )


def written(nodes: Mapping[str, NodeDef], name: str) -> str | None:
    """The variable that a node writes; None where it writes none, or nobody can tell which."""
    node = nodes[name]
    if not (_writes_by_handle(node) or _writes_by_reference(node)):
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


def hold(graph_def: GraphDef, free: Collection[str]) -> None:
    """Puts out of action, in place, what writes any other variable than those of `free`.

    What a library function writes is held in any case: its variables are arguments.
    """
    nodes = {node.name: node for node in graph_def.node}
    held = [node for name, node in nodes.items() if written(nodes, name) not in free]
    held += [node for function in graph_def.library.function for node in function.node_def]
    for node in held:
        inputs = [text for text in node.input if text.startswith("^")]
        if _writes_by_handle(node):
            node.op = "NoOp"
            node.attr.clear()
        elif _writes_by_reference(node) and data_inputs(node):
            dtype = node.attr["T"].type
            inputs.insert(0, data_inputs(node)[0])
            node.op = "RefIdentity"
            node.attr.clear()
            node.attr["T"].type = dtype
        else:
            continue
        node.input[:] = inputs


# What a model that is built on is given in training beside its images, and in prediction.
#
# What its placeholders decide is found by `metagraph.session`.

_KEPT = 0.5  # In training, of the units of a dropout whose graph does not say another share.


class Setting(NamedTuple):
    """A value that the graph is given in training, and the one that it has otherwise."""

    name: str
    dtype: tf.DType
    role: Role
    training: Any
    otherwise: Any

    def __str__(self) -> str:
        """As in the log: `keep_prob:0 (the share that a dropout keeps) 0.5, otherwise 1.0`."""
        training, otherwise = np.asarray(self.training), np.asarray(self.otherwise)
        return (
            f"{self.name} ({self.role.value}) {training.tolist()}, otherwise {otherwise.tolist()}"
        )


def find_settings(
    needed: SubGraph, rows: str, given: Sequence[str], *, switched_on: bool
) -> list[Setting]:
    """The settings among the placeholders of a sub-graph.

    Args:
      needed: what the features are computed from.
      rows: the tensor that the images go to.
      given: `name=value` of --train_feed, the values in training.
      switched_on: whether switches say in training that it is training.

    Raises:
      TrainingError: a placeholder is none of these and has no value; a value that is given does
        not fit, is given twice, or is that of no such placeholder.
    """
    meta, values = needed.meta, _values(needed.meta, given)
    found, finder = [], RoleFinder(needed)
    for info in _placeholders(needed, rows):
        role = finder.role(info)
        _, value = values.get(info.name, ("", None))
        if role is not None:
            found.append(_known(meta, info, role, value, switched_on))
        elif value is not None:
            parsed = _parsed(info, value)
            found.append(Setting(info.name, info.dtype, Role.OTHER, parsed, parsed))
        elif meta.nodes[node_of(info.name)].op in PLACEHOLDERS:
            raise TrainingError(
                f"{meta.path} takes {info} beside its images: give its value with "
                f"--train_feed={node_of(info.name)}=..."
            )
    taken = [setting.name for setting in found]
    for name, (text, _) in values.items():
        if name not in taken:
            known = f"it has {', '.join(taken)}" if taken else "there is none"
            raise TrainingError(
                f"--train_feed={text}: the part of {meta.path} that is taken has no such setting; "
                f"{known}"
            )
    return found


def _values(meta: MetaGraphFile, given: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Tensor -> its name as --train_feed has it, and the text of its value."""
    values: dict[str, tuple[str, str]] = {}
    for name, _, value in (text.partition("=") for text in given):
        tensor = meta.tensor_name(name)
        if tensor in values:
            raise TrainingError(f"--train_feed={name}: {tensor} is given twice")
        values[tensor] = (name, value)
    return values


def _placeholders(needed: SubGraph, rows: str) -> Sequence[TensorInfo]:
    """The placeholders of a sub-graph, but for `rows`."""
    names = [
        f"{name}:0"
        for name, node in needed.meta.nodes.items()
        if name in needed.names
        and node.op in PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
        and f"{name}:0" != rows
    ]
    return describe_tensors(needed.meta, names) if names else ()


def _known(
    meta: MetaGraphFile, info: TensorInfo, role: Role, text: str | None, switched_on: bool
) -> Setting:
    """The setting of a known role; a value that is given goes before all."""
    otherwise = off_value(info.name, role)
    if role is Role.SWITCH:
        training: Any = switched_on != otherwise
    else:
        default = _default(meta, info.name)
        training = default if default is not None and 0 < default < 1 else _KEPT
    if text is not None:
        training = _parsed(info, text)
        kept = training if role is Role.KEEP else 1.0 - training
        if role is not Role.SWITCH and not 0 < kept <= 1:
            raise TrainingError(
                f"--train_feed={node_of(info.name)}={text}: it is {role.value}; expected one from "
                "0 to 1 that leaves something"
            )
    return Setting(info.name, info.dtype, role, training, otherwise)


def _default(meta: MetaGraphFile, name: str) -> float | None:
    """The constant that a placeholder has by default."""
    inputs = data_inputs(meta.nodes[node_of(name)])
    source = meta.nodes.get(node_of(inputs[0])) if inputs else None
    if source is None or source.op != "Const":
        return None
    value = tf.make_ndarray(attribute_of(source, "value").tensor)
    return float(value) if value.size == 1 and value.dtype.kind == "f" else None


def _parsed(info: TensorInfo, text: str) -> Any:
    """The value of --train_feed, of the placeholder's dtype and shape."""
    try:
        found = json.loads(text.lower())
        with np.errstate(over="raise"):
            value = np.asarray(found, info.dtype.as_numpy_dtype)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise TrainingError(
            f"--train_feed={node_of(info.name)}={text}: expected {info.dtype.name}, such as 0.5 "
            "or true"
        ) from error
    fits = info.shape is None or tf.TensorShape(info.shape).is_compatible_with(value.shape)
    if not fits or isinstance(found, bool) != (info.dtype == tf.bool):
        raise TrainingError(f"--train_feed={node_of(info.name)}={text} does not fit {info}")
    return value
