"""What is put into a graph: placeholders for what is fed, and the values of a checkpoint."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from errors import CheckpointError
from metagraph.graph import attribute_of
from metagraph.meta import PLACEHOLDERS, PLACEHOLDERS_WITH_DEFAULT, MetaGraphFile, node_of
from metagraph.tables import (
    Array,
    ByFile,
    ByRun,
    Filling,
    read_vocabulary,
    vocabulary_path,
)
from metagraph.variables import (
    RESOURCE_VARIABLE,
    VARIABLE_OPS,
    dtype_of,
    read_values,
    variable_of,
)

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # As tf.Operation has it.


def free_scope(meta: MetaGraphFile, scope: str) -> str:
    """A scope for what is added to a file's graph; see `free_among`."""
    return free_among(meta.nodes, scope)


def free_among(taken: Iterable[str], scope: str) -> str:
    """`scope`, or `scope_1` and so on where one of the names that are taken is it or is in it.

    Names that differ in case only are the same to TensorFlow.
    """
    tops = {name.partition("/")[0].lower() for name in taken}
    free, number = scope, 0
    while free.lower() in tops:
        number += 1
        free = f"{scope}_{number}"
    return free


def placeholder(
    meta: MetaGraphFile,
    name: str,
    dtype: tf.DType,
    shape: Sequence[int | None] | None,
    scope: str,
    default: tf.Tensor | None = None,
) -> tf.Tensor:
    """A placeholder in the default graph to feed a tensor of the file by, perhaps with a default.

    What cannot have the tensor's own name is put into `scope`, a free one.

    Raises:
      CheckpointError: it is a resource or a variant, of which there are no values to feed.
    """
    if dtype in (tf.resource, tf.variant):
        raise CheckpointError(f"{name} cannot be fed: it is a {dtype.name}")
    node = node_of(name)
    # A fed placeholder is not imported: its name is free. Not all names of files are allowed here.
    own = PLACEHOLDERS if default is None else PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
    if meta.nodes[node].op not in own or not _NAME.fullmatch(node):
        node = f"{scope}/value"
    if default is not None:
        return tf.compat.v1.placeholder_with_default(default, shape, name=node)
    return tf.compat.v1.placeholder(dtype, shape, name=node)


def stand_in(meta: MetaGraphFile, name: str, value: tf.Tensor) -> tf.Tensor:
    """What the consumers of a fed tensor take in its place, given its `placeholder`.

    For a variable that is a variable of our own, assigned in each run before anyone sees it, as
    some of them may take a reference or a handle and not a value.
    """
    op = meta.nodes[node_of(name)].op
    if op not in VARIABLE_OPS:
        return value
    dtype, shape, scope = value.dtype, value.shape, value.op.name
    if op != RESOURCE_VARIABLE:
        ref = tf.raw_ops.VariableV2(shape=shape, dtype=dtype, name=f"{scope}/variable")
        return tf.raw_ops.Assign(ref=ref, value=value, validate_shape=False, name=f"{scope}/assign")
    handle = tf.raw_ops.VarHandleOp(dtype=dtype, shape=shape, name=f"{scope}/variable")
    assign = tf.raw_ops.AssignVariableOp(resource=handle, value=value, name=f"{scope}/assign")
    with tf.control_dependencies([assign]):
        return tf.identity(handle, name=f"{scope}/assigned")


_BYTES_A_STEP = 64 << 20
_TABLE_DTYPES = ("key_dtype", "value_dtype")


class Step(NamedTuple):
    """Operations to run at once, by name, with the values of the tensors they are fed."""

    targets: Sequence[str]
    feeds: Mapping[str, Array]


class Restoring:
    """Operations of our own that give a graph the values of its checkpoint, and the values.

    They are added to the graph as data, before it is imported: built one by one in Python, they
    would take longer than all of the import.

    Attributes:
      graph_def: the nodes to add, in a scope that is free.
      fills_tables: whether there are tables to fill, for which nodes of the graph may be run.
    """

    def __init__(
        self,
        meta: MetaGraphFile,
        names: Collection[str],
        fillings: Sequence[Filling],
        scope: str,
    ) -> None:
        """Makes the nodes for those of the file's that are imported."""
        self.graph_def = GraphDef()
        self.fills_tables = bool(fillings)
        self._meta = meta
        self._scope = scope
        found = [n for name, n in meta.nodes.items() if name in names and n.op in VARIABLE_OPS]
        self._assigned = [(variable_of(meta, node), *self._assign(node)) for node in found]
        self._filled = [(f, *self._fill(f)) for f in fillings if isinstance(f, ByFile)]
        self._runs = [f.node for f in fillings if isinstance(f, ByRun)]

    def steps(self, assets: Mapping[str, str]) -> list[Step]:
        """Reads the values; the steps are to be run in this order.

        Raises:
          CheckpointError: a value is missing, damaged or does not fit; no table takes an asset.
        """
        known = {name: None for filling, *_ in self._filled for name in filling.names}
        for name in assets:
            if name not in known:
                taken = f"it takes {', '.join(known)}" if known else "it takes no file"
                raise CheckpointError(
                    f"--asset {name}: {self._meta.path} has no such file; {taken}"
                )
        feeds: dict[str, Array] = {}
        for filling, keys, values, _ in self._filled:
            node = self._meta.nodes[filling.table]
            kinds = (dtype_of(self._meta, attribute_of(node, k).type) for k in _TABLE_DTYPES)
            path = vocabulary_path(filling, assets)
            feeds[keys], feeds[values] = read_vocabulary(path, filling.text, *kinds)
        fill = Step([op for *_, op in self._filled], feeds)
        steps = [*self._assignments(), fill, Step(self._runs, {})]
        return [step for step in steps if step.targets]

    def _assignments(self) -> Iterator[Step]:
        """Reads the variables; of many large ones, some are assigned at a time.

        So the values of one step can be freed before those of the next are copied.
        """
        values = read_values(self._meta, [variable for variable, _, _ in self._assigned])
        targets, feeds, size = list[str](), dict[str, Array](), 0
        for variable, fed, op in self._assigned:
            value = values.pop(variable.name)
            if targets and size + value.nbytes > _BYTES_A_STEP:
                yield Step(targets, feeds)
                targets, feeds, size = [], {}, 0
            targets.append(op)
            feeds[fed] = value
            size += value.nbytes
        yield Step(targets, feeds)

    def _assign(self, variable: NodeDef) -> tuple[str, str]:
        """Adds an assignment; returns the tensor to feed and the operation to run."""
        dtype = attribute_of(variable, "dtype").type
        value = self._placeholder(dtype)
        if variable.op == RESOURCE_VARIABLE:
            assign = self._node("AssignVariableOp", [variable.name, value])
            assign.attr["dtype"].type = dtype
        else:
            assign = self._node("Assign", [variable.name, value])
            assign.attr["T"].type = dtype
            assign.attr["validate_shape"].b = False  # The shape has been compared already.
        return f"{value}:0", assign.name

    def _fill(self, filling: ByFile) -> tuple[str, str, str]:
        """Adds what fills a table: the tensors of keys and values to feed, the operation to run."""
        table = self._meta.nodes[filling.table]
        dtypes = [attribute_of(table, name).type for name in _TABLE_DTYPES]
        keys, values = (self._placeholder(dtype) for dtype in dtypes)
        version = "V2" if table.op.endswith("V2") else ""
        fill = self._node(f"InitializeTable{version}", [table.name, keys, values])
        fill.attr["Tkey"].type, fill.attr["Tval"].type = dtypes
        return f"{keys}:0", f"{values}:0", fill.name

    def _placeholder(self, dtype: int) -> str:
        node = self._node("Placeholder", [])
        node.attr["dtype"].type = dtype
        return str(node.name)

    def _node(self, op: str, inputs: Sequence[str]) -> NodeDef:
        name = f"{self._scope}/{len(self.graph_def.node)}"
        return self.graph_def.node.add(name=name, op=op, input=inputs)
