"""A graph from a meta graph file, with the values of its checkpoint, ready to run.

A file is data, never code. Only the nodes that the fetched tensors need are imported; the
variables are read from the checkpoint and assigned by operations of our own; the file's own
restore, save and initializer operations are never run.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.errors import CheckpointError
from checkpoints.fed_callable import make_fed_callable
from checkpoints.meta_graph_file import PLACEHOLDERS, MetaGraphFile, node_of
from checkpoints.sub_graph import sub_graph
from checkpoints.variable_values import RESOURCE_VARIABLE, VARIABLE_OPS, Variable, read_values

_NODE = re.compile(r"\{\{node (\S+?)\}\}")  # How TensorFlow marks nodes in its messages.

Array = np.ndarray[Any, Any]


class TensorInfo(NamedTuple):
    """What is known of a tensor before anything runs.

    Attributes:
      name: in full, such as `x:0`.
      dtype: a tf.DType, never a reference type.
      shape: None for each dimension that is not known; None where the rank is not known.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        """As in an error line: `x:0 float32 [?, 32, 32, 3]`."""
        return f"{self.name} {self.dtype.name} {format_shape(self.shape)}"


def format_shape(shape: Sequence[int | None] | None) -> str:
    """`[?, 32, 32, 3]`; `of any shape` where the rank is not known."""
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


class InferenceGraph:
    """Runs the fetched tensors of a restored graph, given the fed ones.

    Attributes:
      feeds: the fed tensors, in the order in which `run` takes their values.
      fetches: the fetched tensors, in the order in which `run` returns their values.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        feeds: Mapping[str, tf.Tensor],
        fetches: Mapping[str, tf.Tensor],
    ) -> None:
        self.feeds = tuple(_info(name, tensor) for name, tensor in feeds.items())
        self.fetches = tuple(_info(name, tensor) for name, tensor in fetches.items())
        self._session = session
        self._run = make_fed_callable(session, list(feeds.values()), list(fetches.values()))

    def run(self, *values: Array) -> list[Array]:
        """One run.

        Args:
          *values: one for each of `feeds`, of its very dtype (byte order included) and shape:
            neither is checked here.

        Returns:
          The value of each of `fetches`.

        Raises:
          CheckpointError: an operation failed; the message names its node.
        """
        try:
            results = self._run(*values)
        except tf.errors.OpError as error:
            raise CheckpointError(f"the graph fails{_cause(error)}") from error
        return [  # A single string comes as bytes, not as an array.
            np.asarray(result, info.dtype.as_numpy_dtype)
            for result, info in zip(results, self.fetches, strict=True)
        ]

    def close(self) -> None:
        """Frees the session and with it the variables' memory."""
        self._session.close()

    def __enter__(self) -> "InferenceGraph":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def load_inference_graph(
    meta: MetaGraphFile, fetches: Sequence[str], feeds: Sequence[str] = ()
) -> InferenceGraph:
    """Imports what `fetches` need when `feeds` are fed, and restores its variables.

    Args:
      meta: the file; its checkpoint is the one at `meta.prefix`.
      fetches: full tensor names. The handle of a resource variable gives the variable's value.
      feeds: full tensor names; any tensor can be fed, not only a placeholder.

    Raises:
      CheckpointError: a tensor does not exist, the graph cannot be imported into this TensorFlow,
        or the checkpoint lacks a file or a variable or is damaged.
    """
    infos = describe_tensors(meta, feeds)
    needed = sub_graph(meta, fetches, feeds)
    graph = tf.Graph()
    with graph.as_default():
        fed = {info.name: _placeholder(meta, info) for info in infos}
        _import(meta, needed.graph_def, {name: fed[name] for name in needed.feeds})
        fetched = {
            # A session refuses to fetch the very tensor that is fed.
            name: tf.identity(fed[name]) if name in fed else _value(_tensor(graph, name))
            for name in fetches
        }
        assignments = _assignments(graph)
    graph.finalize()
    session = _restored_session(graph, assignments, meta.prefix)
    return InferenceGraph(session, fed, fetched)


def describe_tensors(meta: MetaGraphFile, names: Sequence[str]) -> tuple[TensorInfo, ...]:
    """The dtype and shape of tensors, as TensorFlow infers them; nothing is run or restored.

    Raises:
      CheckpointError: a tensor does not exist, or the graph cannot be imported.
    """
    graph = tf.Graph()
    with graph.as_default():
        _import(meta, sub_graph(meta, names).graph_def, {})
    return tuple(_info(name, _tensor(graph, name)) for name in names)


def _placeholder(meta: MetaGraphFile, info: TensorInfo) -> tf.Tensor:
    """A placeholder to feed a tensor by, under a name that no imported node has."""
    if info.dtype in (tf.resource, tf.variant):
        raise CheckpointError(f"{info.name} cannot be fed: it is a {info.dtype.name}")
    name = node_of(info.name)
    if meta.nodes[name].op not in PLACEHOLDERS:  # A fed one is not imported: its name is free.
        name = "fed/" + info.name.replace(":", "_")
        while name in meta.nodes:
            name += "_"
    return tf.compat.v1.placeholder(info.dtype, info.shape, name=name)


def _import(meta: MetaGraphFile, graph_def: GraphDef, input_map: Mapping[str, tf.Tensor]) -> None:
    """Imports into the default graph, under the file's names.

    Raises:
      CheckpointError: an operation or attribute that this TensorFlow does not have.
    """
    try:
        tf.import_graph_def(
            graph_def,
            input_map=dict(input_map),
            name="",
            producer_op_list=meta.proto.meta_info_def.stripped_op_list,
        )
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise CheckpointError(f"{meta.path} cannot be imported: {_first_line(error)}") from error


def _tensor(graph: tf.Graph, name: str) -> tf.Tensor:
    try:
        return graph.get_tensor_by_name(name)
    except (KeyError, ValueError) as error:
        outputs = len(graph.get_operation_by_name(node_of(name)).outputs)
        raise CheckpointError(
            f"there is no tensor {name} (outputs of {node_of(name)}: {outputs})"
        ) from error


def _value(tensor: tf.Tensor) -> tf.Tensor:
    """A tensor that can be fetched: in place of a resource variable's handle, its value."""
    if tensor.op.type != RESOURCE_VARIABLE:
        return tensor
    return tf.raw_ops.ReadVariableOp(resource=tensor, dtype=tensor.op.get_attr("dtype"))


def _info(name: str, tensor: tf.Tensor) -> TensorInfo:
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorInfo(name, tensor.dtype.base_dtype, shape)


class _Assignment(NamedTuple):
    """Puts what is fed to `value` into `variable`."""

    variable: Variable
    value: tf.Tensor
    op: tf.Operation


def _assignments(graph: tf.Graph) -> list[_Assignment]:
    """Adds an assignment to each variable of the default graph, which is `graph`."""
    return [
        _assign_resource(op) if op.type == RESOURCE_VARIABLE else _assign_ref(op)
        for op in graph.get_operations()
        if op.type in VARIABLE_OPS
    ]


def _assign_ref(op: tf.Operation) -> _Assignment:
    (ref,) = op.outputs
    value = tf.compat.v1.placeholder(ref.dtype.base_dtype)
    assign = tf.raw_ops.Assign(ref=ref, value=value, validate_shape=False)
    return _Assignment(Variable(op.name, value.dtype, ref.shape), value, assign.op)


def _assign_resource(op: tf.Operation) -> _Assignment:
    dtype, shape = op.get_attr("dtype"), tf.TensorShape(op.get_attr("shape"))
    value = tf.compat.v1.placeholder(dtype)
    assign = tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=value)
    return _Assignment(Variable(op.name, value.dtype, shape), value, assign)


def _restored_session(
    graph: tf.Graph, assignments: Sequence[_Assignment], prefix: str
) -> tf.compat.v1.Session:
    """A session whose variables have the values of the checkpoint at `prefix`."""
    values = read_values(prefix, [assignment.variable for assignment in assignments])
    session = tf.compat.v1.Session(
        graph=graph, config=tf.compat.v1.ConfigProto(allow_soft_placement=True)
    )
    session.run(
        [assignment.op for assignment in assignments],
        {assignment.value: values[assignment.variable.name] for assignment in assignments},
    )
    return session


def _cause(error: tf.errors.OpError) -> str:
    """The node and the reason, out of the many lines of a session's message.

    The reason is the first line, or, where a traceback goes before it, the one after `Node: ...`.
    """
    lines = str(error.message).strip().splitlines()
    after = [reason for line, reason in itertools.pairwise(lines) if line.startswith("Node: ")]
    node = _NODE.search(str(error.message))
    return f"{f' at {node[1]}' if node else ''}: {(after or lines)[0]}"


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return str(text).strip().partition("\n")[0]
