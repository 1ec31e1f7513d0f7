"""A graph from a meta graph file, with the values of its checkpoint, ready to run.

Only the nodes that the fetched tensors need are imported. Operations of our own assign the
variables: the file's restore and save operations and the initializers of its variables are never
run; that of a lookup table is, once it is checked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.bundle import DType
from checkpoints.writer import make_fed_callable
from errors import CheckpointError, first_few
from metagraph.description import Array, RunnableGraph, TensorInfo, as_numpy_dtype
from metagraph.graph import attribute_of, joined, nodes_by_op, remake, say_shapes, sub_graph
from metagraph.importing import (
    disarmed_graph,
    import_disarmed,
    import_graph,
    reason_of_run,
    run_errors,
    tensor_of,
)
from metagraph.meta import INPUT_OPS, LOOPS, PLACEHOLDERS, MetaGraphFile, node_of
from metagraph.safety import RANDOM_OPS, RUN, TimeLimit, check_operations, follows_from_inputs
from metagraph.tables import Filling, read_vocabulary, vocabulary_path, with_tables
from metagraph.usage import mixing
from metagraph.variables import RESOURCE_VARIABLE, VARIABLE_OPS, dtype_of, read_values, variable_of

_START = "the start of the graph"
_SHOWN = 3


class Step(NamedTuple):
    """Operations to run at once, by name, with the values of the tensors they are fed."""

    targets: Sequence[str]
    feeds: Mapping[str, Array]


class InferenceGraph(RunnableGraph, AbstractContextManager["InferenceGraph"]):
    """Runs the fetched tensors of a restored graph; its end frees the variables' memory."""

    def __init__(
        self,
        session: tf.compat.v1.Session,
        feeds: Mapping[str, tf.Tensor],
        fetches: Mapping[str, tf.Tensor],
        random_nodes: Sequence[str],
        time_limit: TimeLimit,
        is_pure: bool,
    ) -> None:
        self.feeds = tuple(_info(name, tensor) for name, tensor in feeds.items())
        self.fetches = tuple(_info(name, tensor) for name, tensor in fetches.items())
        self.random_nodes = random_nodes
        self.is_pure = is_pure
        self._session = session
        self._fed, self._fetched = feeds, fetches
        self.time_limit = time_limit
        self._run = make_fed_callable(
            session, [*feeds.values()], [*fetches.values()], timeout_ms=time_limit.milliseconds
        )

    def _one_run(self) -> AbstractContextManager[None]:
        return _running(self._session.graph, RUN, self.time_limit, "the graph fails")

    def _run_batch(self, values: Sequence[Array]) -> list[Array]:
        return [  # A single string comes as bytes, not as an array.
            np.asarray(result, info.dtype.as_numpy_dtype)
            for result, info in zip(self._run(*values), self.fetches, strict=True)
        ]

    def mixing(self, fetch: str) -> str:
        """Names the operations that may, and the way out."""
        fed = zip(self.feeds, self._fed.values(), strict=True)
        return mixing([tensor for info, tensor in fed if info.has_rows], self._fetched[fetch])

    def __exit__(self, *error: object) -> None:
        self._session.close()


def load_inference_graph(
    meta: MetaGraphFile,
    fetches: Sequence[str],
    feeds: Sequence[str] = (),
    *,
    trust_graph: bool = False,
    assets: Mapping[str, str] = MappingProxyType({}),
    time_limit: TimeLimit = TimeLimit(),  # noqa: B008 (it is frozen)
    optimize: bool = True,
    side_by_side: bool = False,
) -> InferenceGraph:
    """Imports what `fetches` need when `feeds` are fed, and restores its variables.

    All are full names. Any tensor can be fed; a variable has the fed value in each run, and is not
    read from the checkpoint. In place of a resource variable's handle, its value is fetched.

    With `trust_graph`, what may do more than compute is named in a warning, and run. The `assets`
    are files that lookup tables are filled from, by the tensor that gives the file's name, or by
    that name. The time limit is one of the import, of filling the tables, and of each run. To
    `optimize` lets TensorFlow rewrite the graph, which may change a result's last bits and takes
    copies of all constants. Where runs are to go `side_by_side`, each has its caller's thread for
    itself, which is faster than threads that all of them share.

    Raises CheckpointError where a tensor does not exist, the graph cannot be imported, may do more
    than compute, has no kernel here or takes too long, a table's file is not named, or the
    checkpoint lacks something or is damaged.
    """
    with time_limit.over("the import of the graph"):
        infos = describe_tensors(meta, feeds)  # Of a disarmed copy: nothing of it can run.
        needed, fillings = with_tables(meta, fetches, feeds)
        check_operations(needed.graph_def, meta.path, trust_graph)
        nodes = nodes_by_op(needed.graph_def)
        with tf.Graph().as_default() as graph:
            scope = free_scope(meta, "fed")
            fed = {i.name: placeholder(meta, i.name, i.dtype, i.shape, scope) for i in infos}
            stand_ins = {name: stand_in(meta, name, fed[name]) for name in needed.feeds}
            restoring = Restoring(meta, needed.names, fillings, free_scope(meta, "restored"))
            needed.graph_def.MergeFrom(restoring.graph_def)
            import_graph(meta, needed.graph_def, stand_ins)
            # A session refuses to fetch the very tensor that is fed.
            fetched = {
                name: tf.identity(fed[name]) if name in fed else _value(tensor_of(graph, name))
                for name in fetches
            }
        graph.finalize()
    steps = restoring.steps(assets)
    start = f"{_START}, which fills its tables," if fillings else _START
    # A variable that is fed is written in each run.
    writes = any(stand_ins[name] is not fed[name] for name in stand_ins)
    is_pure = follows_from_inputs(nodes) and not writes
    random_nodes = [name for op, names in nodes.items() if op in RANDOM_OPS for name in names]
    # Some of what is wrong is only found out when the graph is first built.
    with _running(graph, start, time_limit, f"{meta.path} cannot be run"):
        # A loop in its caller's thread heeds no time limit.
        alone = side_by_side and is_pure and not LOOPS.intersection(nodes)
        config = _session_config(optimize, alone)
        session = _restored_session(graph, steps, time_limit, config)
        return InferenceGraph(session, fed, fetched, random_nodes, time_limit, is_pure)


def describe_tensors(meta: MetaGraphFile, names: Sequence[str]) -> tuple[TensorInfo, ...]:
    """The dtype and shape of tensors, or CheckpointError; nothing is restored, refused or run."""
    graph = disarmed_graph(meta, names)
    infos = (_info(name, tensor_of(graph, name)) for name in names)
    return tuple(i._replace(shape=joined(meta.shapes.get(i.name), i.shape)) for i in infos)


_PRIME = 7919  # A size that is unlikely to be right.
_MOST_RANKS, _MOST_NEAR, _MOST_NEEDED = 6, 16, 64
_NUMBER = re.compile(r"(?<![\w./:-])[1-9]\d{0,6}(?![\w/:]|\.\d)")  # In a message, none of a name.


def demanded_shape(meta: MetaGraphFile, placeholder: str) -> tuple[int | None, ...] | None:
    """The shape that those who take a placeholder demand, such as a product with known weights.

    TensorFlow is asked, which refuses others as it imports what is near. None where it takes
    several ranks, or none.
    """
    near = [placeholder]
    for name in itertools.islice(near, _MOST_NEAR):  # It grows.
        takers = dict.fromkeys(meta.takers.get(name, ())[:_MOST_NEAR])
        small = (t for t in takers if len(sub_graph(meta, [f"{t}:0"]).names) <= _MOST_NEEDED)
        near += [taker for taker in small if taker not in near]
    part = sub_graph(meta, [f"{name}:0" for name in near]).graph_def

    def refusal(*sizes: int | None) -> str:
        tried = GraphDef()
        tried.CopyFrom(part)
        say_shapes(next(node for node in tried.node if node.name == placeholder), [sizes])
        try:
            import_disarmed(meta, tried)
        except CheckpointError as error:
            return str(error)
        return ""

    ranks = [rank for rank in range(_MOST_RANKS) if not refusal(*[None] * rank)]
    sizes: list[int | None] = [None] * ranks[0] if len(ranks) == 1 else []
    for axis in range(len(sizes)):
        others = sizes[:axis], sizes[axis + 1 :]
        named = sorted(map(int, _NUMBER.findall(refusal(*others[0], _PRIME, *others[1]))))
        fitting = (n for n in named if n != _PRIME and not refusal(*others[0], n, *others[1]))
        sizes[axis] = next(fitting, None)
    return tuple(sizes) if len(ranks) == 1 else None


def _value(tensor: tf.Tensor) -> tf.Tensor:
    """A tensor that can be fetched: in place of a resource variable's handle, its value."""
    if tensor.op.type != RESOURCE_VARIABLE:
        if tensor.dtype in (tf.resource, tf.variant):
            raise CheckpointError(f"{tensor.name} cannot be fetched: it is a {tensor.dtype.name}")
        return tensor
    return tf.raw_ops.ReadVariableOp(resource=tensor, dtype=tensor.op.get_attr("dtype"))


def _info(name: str, tensor: tf.Tensor) -> TensorInfo:
    dtype, shape = tensor.dtype.base_dtype, tensor.shape
    if tensor.op.type == RESOURCE_VARIABLE:
        dtype = tensor.op.get_attr("dtype")
        shape = tf.TensorShape(tensor.op.get_attr("shape"))
    if shape.rank is None:
        return TensorInfo(name, DType(dtype.name), None)
    # A damaged file may have a size below -1; TensorFlow takes it in as it is.
    sizes = (size if size is not None and size >= 0 else None for size in shape.as_list())
    return TensorInfo(name, DType(dtype.name), tuple(sizes))


def _session_config(optimize: bool, in_callers_thread: bool) -> tf.compat.v1.ConfigProto:
    threads = -1 if in_callers_thread else 0  # 0 leaves their number to TensorFlow.
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=True, inter_op_parallelism_threads=threads
    )
    if not optimize:
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    return config


@contextmanager
def _running(graph: tf.Graph, what: str, limit: TimeLimit, failure: str) -> Iterator[None]:
    """Limits the time of what a session does, and makes a CheckpointError of what it raises."""
    try:
        with limit.over(what):
            yield
    except tf.errors.DeadlineExceededError as error:
        raise CheckpointError(limit.overrun(what, graph)) from error
    except run_errors() as error:
        raise CheckpointError(f"{failure}{reason_of_run(error)}") from error


def _restored_session(
    graph: tf.Graph, steps: list[Step], time_limit: TimeLimit, config: tf.compat.v1.ConfigProto
) -> tf.compat.v1.Session:
    """A session whose variables and tables have their values; it takes the steps, one by one."""
    session = tf.compat.v1.Session(graph=graph, config=config)
    options = tf.compat.v1.RunOptions(timeout_in_ms=time_limit.milliseconds)
    while steps:
        step = steps.pop(0)
        session.run(list(step.targets), dict(step.feeds), options=options)
    return session


def warn_if_random(
    graph: RunnableGraph, fed: Sequence[Array], results: Sequence[Array]
) -> list[str]:
    """Warns of the fetched tensors of which a second run on what was `fed` gives other `results`.

    Returns their names.
    """
    if not graph.random_nodes:
        return []
    triples = zip(graph.fetches, results, graph.run(*fed), strict=True)
    found = [info.name for info, first, second in triples if not _equal(first, second)]
    if found:
        logging.warning(
            "%s: another value at each run on the same input; random: %s. If it is dropout, feed "
            "its keep probability or its switch, or the tensor after it",
            ", ".join(found),
            first_few(graph.random_nodes, _SHOWN),
        )
    return found


def _equal(first: Array, second: Array) -> bool:
    first, second = as_numpy_dtype(first), as_numpy_dtype(second)
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")


# What is put into a graph: placeholders for what is fed, and the values of a checkpoint.

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # As tf.Operation has it.


def free_scope(meta: MetaGraphFile, scope: str) -> str:
    """A scope for what is added to a file's graph, as `free_among` its nodes."""
    return free_among(meta.nodes, scope)


def free_among(taken: Iterable[str], scope: str) -> str:
    """`scope`, or `scope_1` and so on; names that differ in case only are one to TensorFlow."""
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

    What cannot have the tensor's own name is put into `scope`, a free one. Raises CheckpointError
    where it is a resource or a variant, of which there are no values to feed.
    """
    if dtype in (tf.resource, tf.variant):
        raise CheckpointError(f"{name} cannot be fed: it is a {dtype.name}")
    node = node_of(name)
    # A fed placeholder is not imported: its name is free. Not all names of files are allowed here.
    own = PLACEHOLDERS if default is None else INPUT_OPS
    if meta.nodes[node].op not in own or not _NAME.fullmatch(node):
        node = f"{scope}/value"
    if default is not None:
        return tf.compat.v1.placeholder_with_default(default, shape, name=node)
    return tf.compat.v1.placeholder(dtype, shape, name=node)


def stand_in(meta: MetaGraphFile, name: str, value: tf.Tensor) -> tf.Tensor:
    """What the consumers of a fed tensor take in its place, given its `placeholder`.

    For a variable, whose reference or handle they may take, it is one of our own, assigned in each
    run before anyone sees it.
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


class Restoring:
    """Operations of our own that give a graph the values of its checkpoint, and the values.

    They are added to the graph as data, `graph_def`, before its import: to build them in Python
    takes longer.
    """

    def __init__(
        self, meta: MetaGraphFile, names: Collection[str], fillings: Sequence[Filling], scope: str
    ) -> None:
        """Makes the nodes for those of the file's that are imported, `names`."""
        self.graph_def = GraphDef()
        self._meta, self._scope = meta, scope
        found = [n for name, n in meta.nodes.items() if name in names and n.op in VARIABLE_OPS]
        self._assigned = [(variable_of(meta, node), *self._assign(node)) for node in found]
        self._filled = [(f, *self._fill(f)) for f in fillings if f.node is None]
        self._runs = [f.node for f in fillings if f.node is not None]

    def steps(self, assets: Mapping[str, str]) -> list[Step]:
        """Reads the values, or raises CheckpointError; the steps are to be run in this order."""
        known = {name: None for filling, *_ in self._filled for name in filling.names}
        for name in assets:
            if name not in known:
                taken = f"it takes {', '.join(known)}" if known else "it takes no file"
                raise CheckpointError(
                    f"--asset {name}: {self._meta.path} has no such file; {taken}"
                )
        feeds: dict[str, Array] = {}
        for filling, _, (keys, values) in self._filled:
            node = self._meta.nodes[filling.table]
            kinds = (dtype_of(self._meta, attribute_of(node, k).type) for k in _TABLE_DTYPES)
            path = vocabulary_path(filling, assets)
            feeds[keys], feeds[values] = read_vocabulary(path, filling.text, *kinds)
        fill = Step([op for _, op, _ in self._filled], feeds)
        steps = [*self._assignments(), fill, Step(self._runs, {})]
        return [step for step in steps if step.targets]

    def _assignments(self) -> Iterator[Step]:
        """Reads the variables; the values of one step can be freed before the next are copied."""
        values = read_values(self._meta, [variable for variable, _, _ in self._assigned])
        targets, feeds, size = list[str](), dict[str, Array](), 0
        for variable, op, (fed,) in self._assigned:
            value = values.pop(variable.name)
            if targets and size + value.nbytes > _BYTES_A_STEP:
                yield Step(targets, feeds)
                targets, feeds, size = [], {}, 0
            targets.append(op)
            feeds[fed] = value
            size += value.nbytes
        yield Step(targets, feeds)

    def _assign(self, variable: NodeDef) -> tuple[str, list[str]]:
        dtype = attribute_of(variable, "dtype").type
        if variable.op == RESOURCE_VARIABLE:
            return self._add("AssignVariableOp", variable.name, {"dtype": dtype})
        names = self._add("Assign", variable.name, {"T": dtype})
        # The shape has been compared already.
        self.graph_def.node[-1].attr["validate_shape"].b = False
        return names

    def _fill(self, filling: Filling) -> tuple[str, list[str]]:
        table = self._meta.nodes[filling.table]
        key, value = (attribute_of(table, name).type for name in _TABLE_DTYPES)
        version = "V2" if table.op.endswith("V2") else ""
        return self._add(f"InitializeTable{version}", table.name, {"Tkey": key, "Tval": value})

    def _add(self, op: str, target: str, dtypes: Mapping[str, int]) -> tuple[str, list[str]]:
        """Adds an operation that gives a node values; its name, and the tensors to feed them by.

        Of each value, the dtype is an attribute of the operation.
        """
        fed = [self._node("Placeholder", [], {"dtype": dtype}) for dtype in dtypes.values()]
        return self._node(op, [target, *fed], dtypes), [f"{name}:0" for name in fed]

    def _node(self, op: str, inputs: Sequence[str], dtypes: Mapping[str, int]) -> str:
        node = self.graph_def.node.add(name=f"{self._scope}/{len(self.graph_def.node)}")
        remake(node, op, inputs, dtypes)
        return str(node.name)
