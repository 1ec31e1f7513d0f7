"""Puts the values of a checkpoint into a graph, by operations of our own that join its import."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import Array, CheckpointReader
from checkpoints.loading.graph_view import attribute
from checkpoints.loading.lookup_tables import ByCheckpoint, ByFile, ByRun, Filling, vocabulary_path
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.variable_values import (
    RESOURCE_VARIABLE,
    VARIABLE_OPS,
    read_values,
    variable_of,
)
from checkpoints.loading.vocabulary import read_vocabulary

_BYTES_A_STEP = 64 << 20
_TABLE_DTYPES = ("key_dtype", "value_dtype")


class Step(NamedTuple):
    """Operations to run at once, by name, with the values of the tensors they are fed."""

    targets: Sequence[str]
    feeds: Mapping[str, Array]


class _TableImport(NamedTuple):
    """Puts what is fed to `keys` and `values` into the table of `filling`."""

    filling: ByFile | ByCheckpoint
    keys: str
    values: str
    op: str


class Restoring:
    """The nodes that give a graph its values, and the values.

    They are added to the graph as data, before it is imported: built one by one in Python, they
    would take longer than all of the import.
    """

    def __init__(
        self,
        meta: MetaGraphFile,
        names: Collection[str],
        fillings: Sequence[Filling],
        scope: str,
    ) -> None:
        """Makes the nodes.

        Args:
          meta: the file.
          names: the nodes of it that are imported.
          fillings: of the tables among them.
          scope: of names that no node of the file has.
        """
        self.graph_def = GraphDef()
        self._meta = meta
        self._scope = scope
        found = [n for name, n in meta.nodes.items() if name in names and n.op in VARIABLE_OPS]
        self._assigned = [(variable_of(meta, node), *self._assign(node)) for node in found]
        self._imports = [self._fill(f) for f in fillings if not isinstance(f, ByRun)]
        self._runs = [f.node for f in fillings if isinstance(f, ByRun)]

    @property
    def fills_tables(self) -> bool:
        """Whether there are tables to fill, for which operations of the graph may be run."""
        return bool(self._imports or self._runs)

    def steps(self, assets: Mapping[str, str]) -> list[Step]:
        """Reads the values; the steps are to be run in this order.

        Raises:
          CheckpointError: a value is missing, damaged or does not fit; no table takes an asset.
        """
        self._check_assets(assets)
        filled: dict[str, Array] = {}
        for table in self._imports:
            filled[table.keys], filled[table.values] = self._contents(table.filling, assets)
        steps = [
            *self._assignments(),
            Step([table.op for table in self._imports], filled),
            Step(self._runs, {}),
        ]
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

    def _check_assets(self, assets: Mapping[str, str]) -> None:
        files = [table.filling for table in self._imports if isinstance(table.filling, ByFile)]
        known = {name: None for file in files for name in file.names}
        for name in assets:
            if name not in known:
                taken = f"it takes {', '.join(known)}" if known else "it takes no file"
                raise CheckpointError(
                    f"--asset {name}: {self._meta.path} has no such file; {taken}"
                )

    def _assign(self, variable: NodeDef) -> tuple[str, str]:
        """Adds an assignment; returns the tensor to feed and the operation to run."""
        dtype = attribute(variable, "dtype").type
        value = self._placeholder(dtype)
        if variable.op == RESOURCE_VARIABLE:
            assign = self._node("AssignVariableOp", [variable.name, value])
            assign.attr["dtype"].type = dtype
        else:
            assign = self._node("Assign", [variable.name, value])
            assign.attr["T"].type = dtype
            assign.attr["validate_shape"].b = False  # The shape has been compared already.
        return f"{value}:0", assign.name

    def _fill(self, filling: ByFile | ByCheckpoint) -> _TableImport:
        """Adds what fills a table."""
        table = self._meta.nodes[filling.table]
        dtypes = [attribute(table, name).type for name in _TABLE_DTYPES]
        keys, values = (self._placeholder(dtype) for dtype in dtypes)
        is_file = isinstance(filling, ByFile)
        op = "InitializeTable" if is_file else "LookupTableImport"
        version = "V2" if table.op.endswith("V2") else ""
        fill = self._node(op + version, [table.name, keys, values])
        for name, dtype in zip(
            ("Tkey", "Tval") if is_file else ("Tin", "Tout"), dtypes, strict=True
        ):
            fill.attr[name].type = dtype
        return _TableImport(filling, f"{keys}:0", f"{values}:0", fill.name)

    def _placeholder(self, dtype: int) -> str:
        node = self._node("Placeholder", [])
        node.attr["dtype"].type = dtype
        return str(node.name)

    def _node(self, op: str, inputs: Sequence[str]) -> NodeDef:
        name = f"{self._scope}/{len(self.graph_def.node)}"
        return self.graph_def.node.add(name=name, op=op, input=inputs)

    def _contents(
        self, filling: ByFile | ByCheckpoint, assets: Mapping[str, str]
    ) -> tuple[Array, Array]:
        """The keys and values of a table."""
        table = self._meta.nodes[filling.table]
        dtypes = [_dtype(self._meta, attribute(table, name).type) for name in _TABLE_DTYPES]
        if isinstance(filling, ByFile):
            return read_vocabulary(vocabulary_path(filling, assets), filling.text, *dtypes)
        reader = CheckpointReader(self._meta.prefix)
        keys = (filling.keys.key, filling.values.key)
        for key, dtype in zip(keys, dtypes, strict=True):
            if reader.dtypes.get(key) != dtype:
                raise CheckpointError(
                    f"{self._meta.prefix} lacks {key}, {dtype.name} of the table {filling.table}"
                )
        reader.check_sizes(keys)
        return reader.read(keys[0]), reader.read(keys[1])


def _dtype(meta: MetaGraphFile, number: int) -> tf.DType:
    try:
        return tf.as_dtype(number)
    except TypeError as error:
        raise CheckpointError(f"{meta.path} is damaged: there is no dtype {number}") from error
