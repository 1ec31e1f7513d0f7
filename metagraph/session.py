"""A graph from a meta graph file, with the values of its checkpoint, ready to run.

A file is data, never code. Only the nodes that the fetched tensors need are imported; the variables
are read from the checkpoint and assigned by operations of our own; the file's own restore, save and
initializer operations are never run. Here is also what tells such a graph that it is being trained,
its switches and dropouts, and whether it gives something else when it is run again.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints.bundle import make_fed_callable
from errors import CheckpointError, first_few
from metagraph.casting import Array
from metagraph.graph import SubGraph, data_inputs, nodes_by_op
from metagraph.importing import declared, disarmed_graph, import_graph, reason_of_run, tensor_of
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.safety import OPERATIONS, RUN, TimeLimit, check_operations
from metagraph.tables import with_tables
from metagraph.values import Restoring, Step, free_scope, placeholder, stand_in
from metagraph.variables import RESOURCE_VARIABLE

_START = "the start of the graph"


class InferenceGraph:
    """Runs the fetched tensors of a restored graph, given the fed ones.

    Attributes:
      feeds: in the order in which `run` takes their values.
      fetches: in the order in which `run` returns their values.
      nodes_by_op: the names of its nodes by operation, in the file's order; those of library
        functions as `function/node`.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        feeds: Mapping[str, tf.Tensor],
        fetches: Mapping[str, tf.Tensor],
        nodes_by_op: Mapping[str, Sequence[str]],
        time_limit: TimeLimit,
    ) -> None:
        self.feeds = tuple(_info(name, tensor) for name, tensor in feeds.items())
        self.fetches = tuple(_info(name, tensor) for name, tensor in fetches.items())
        self.nodes_by_op = nodes_by_op
        self._session = session
        self._time_limit = time_limit
        self._run = make_fed_callable(
            session, [*feeds.values()], [*fetches.values()], timeout_ms=time_limit.milliseconds
        )

    def run(self, *values: Array) -> list[Array]:
        """The values of `fetches`, from one run.

        Args:
          *values: one for each of `feeds`, of its very dtype (byte order included) and shape:
            neither is checked here.

        Raises:
          CheckpointError: an operation failed, and the message names its node; or the run took
            longer than the time limit.
        """
        try:
            with self._time_limit.over(RUN):
                results = self._run(*values)
        except tf.errors.DeadlineExceededError as error:
            line = self._time_limit.overrun(RUN, self._session.graph)
            raise CheckpointError(line) from error
        except tf.errors.OpError as error:
            raise CheckpointError(f"the graph fails{reason_of_run(error)}") from error
        return [  # A single string comes as bytes, not as an array.
            np.asarray(result, info.dtype.as_numpy_dtype)
            for result, info in zip(results, self.fetches, strict=True)
        ]

    def close(self) -> None:
        """Frees the session and with it the variables' memory."""
        self._session.close()

    def __enter__(self) -> "InferenceGraph":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load_inference_graph(
    meta: MetaGraphFile,
    fetches: Sequence[str],
    feeds: Sequence[str] = (),
    *,
    trust_graph: bool = False,
    assets: Mapping[str, str] = MappingProxyType({}),
    time_limit: TimeLimit = TimeLimit(),  # noqa: B008 (it is frozen)
    optimize: bool = True,
) -> InferenceGraph:
    """Imports what `fetches` need when `feeds` are fed, and restores its variables.

    Both are full tensor names. Any tensor can be fed, not only a placeholder; a fed variable has
    the fed value in each run, and is not read from the checkpoint. In place of the handle of a
    resource variable, its value is fetched.

    Args:
      meta: the file; its checkpoint is the one at `meta.prefix`.
      fetches: what a run returns.
      feeds: what a run takes.
      trust_graph: run also what may do more than compute, naming it in a warning.
      assets: files that lookup tables are filled from, by the name of the tensor that the graph
        takes the file's name from, or by the file's name there.
      time_limit: of the import, of what fills the tables, of each run. Reading the checkpoint has
        none: that takes as long as the files are large.
      optimize: let TensorFlow rewrite the graph before it runs, which may change a result's last
        bits and takes copies of all constants.

    Raises:
      CheckpointError: a tensor does not exist, the graph cannot be imported into this TensorFlow,
        an operation may do more than compute or has no kernel here, a table's file is not named,
        something took longer than the time limit, or the checkpoint lacks a file or a variable or
        is damaged.
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
    start = f"{_START}, which fills its tables," if restoring.fills_tables else _START
    with time_limit.over(start):
        try:
            session = _restored_session(graph, steps, time_limit, optimize)
            return InferenceGraph(session, fed, fetched, nodes, time_limit)
        except tf.errors.DeadlineExceededError as error:
            raise CheckpointError(time_limit.overrun(start, graph)) from error
        except tf.errors.OpError as error:  # What is only found out when the graph is first built.
            raise CheckpointError(f"{meta.path} cannot be run{reason_of_run(error)}") from error


def describe_tensors(meta: MetaGraphFile, names: Sequence[str]) -> tuple[TensorInfo, ...]:
    """The dtype and shape of tensors; nothing is restored, refused or run.

    They are what TensorFlow infers, or, where it lacks an operation that a tensor is computed by,
    what the file itself says.

    Raises:
      CheckpointError: a tensor does not exist, or the graph cannot be imported.
    """
    try:
        graph = disarmed_graph(meta, names)
        return tuple(_info(name, tensor_of(graph, name)) for name in names)
    except CheckpointError:
        found = {name: declared(meta, name) for name in names}
        if None in found.values():
            raise
        return tuple(_tensor_info(name, *kind) for name in names if (kind := found[name]))


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
    return _tensor_info(name, dtype, shape)


def _tensor_info(name: str, dtype: tf.DType, shape: tf.TensorShape) -> TensorInfo:
    if shape.rank is None:
        return TensorInfo(name, dtype, None)
    # A damaged file may have a size below -1; TensorFlow takes it in as it is.
    sizes = (size if size is not None and size >= 0 else None for size in shape.as_list())
    return TensorInfo(name, dtype, tuple(sizes))


def _restored_session(
    graph: tf.Graph, steps: list[Step], time_limit: TimeLimit, optimize: bool
) -> tf.compat.v1.Session:
    """A session whose variables and tables have their values; it takes the steps, one by one."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    if not optimize:
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    session = tf.compat.v1.Session(graph=graph, config=config)
    options = tf.compat.v1.RunOptions(timeout_in_ms=time_limit.milliseconds)
    while steps:
        step = steps.pop(0)
        session.run(list(step.targets), dict(step.feeds), options=options)
    return session


# Those that draw from a generator whose state goes on from run to run, a fixed seed or not.
RANDOM_OPS = frozenset([*OPERATIONS["computes: random numbers"], "FixedUnigramCandidateSampler"])
_SHOWN = 3


def warn_if_random(
    graph: InferenceGraph, fed: Sequence[Array], results: Sequence[Array]
) -> tuple[str, ...]:
    """Warns where a second run on what was `fed` gives something else than `results` of the first.

    A graph without random nodes is not run again. Returns the fetched tensors that differ.
    """
    nodes = [name for op, names in graph.nodes_by_op.items() if op in RANDOM_OPS for name in names]
    if not nodes:
        return ()
    again = graph.run(*fed)
    pairs = zip(graph.fetches, results, again, strict=True)
    differing = tuple(info.name for info, first, second in pairs if not _equal(first, second))
    if differing:
        logging.warning(
            "%s: another value at each run on the same input; random: %s. If it is dropout, feed "
            "its keep probability or its switch, or the tensor after it",
            ", ".join(differing),
            first_few(nodes, _SHOWN),
        )
    return differing


def _equal(first: Array, second: Array) -> bool:
    if first.dtype.kind == "O":
        return np.array_equal(first, second)
    return first.shape == second.shape and first.tobytes() == second.tobytes()


# What tells a graph that it is being trained: switches, and how much of its units a dropout keeps.
#
# A value of one bool is a switch; a value of one number is a dropout's if random numbers are
# compared with it, or if its name says so.

_INVERTED = re.compile(r"infer|eval|test|predict|freeze", re.IGNORECASE)
_TRAINING = re.compile(r"train", re.IGNORECASE)
_KEEP = re.compile(r"keep|retain", re.IGNORECASE)
_DROP = re.compile(r"drop", re.IGNORECASE)
_SAME = frozenset({"Cast", "Identity", "Reshape"})
_BELOW = frozenset({"Less", "LessEqual"})  # What is drawn below a share is kept:
_ABOVE = frozenset({"Greater", "GreaterEqual"})  # above a rate, likewise.
_SUMS = frozenset({"Add", "AddV2"})  # floor(keep + drawn), as TensorFlow 1 had it until 1.12.
_NEAR = 6  # Operations between random numbers and their comparison.
_STATELESS = "StatelessRandom"


class Role(Enum):
    """What a value decides."""

    SWITCH = "a switch"
    KEEP = "the share that a dropout keeps"
    RATE = "the share that a dropout drops"
    OTHER = "a value"


def off_value(name: str, role: Role) -> bool | float:
    """The value in evaluation and prediction, of any role but `OTHER`.

    The name of a switch tells whether it is one of training or of the contrary, as `testing` is.
    """
    if role is Role.SWITCH:
        return bool(_INVERTED.search(name)) and not _TRAINING.search(name)
    return 1.0 if role is Role.KEEP else 0.0


def says_switch(name: str) -> bool:
    """Whether a name speaks of training, or of its contrary."""
    return bool(_INVERTED.search(name) or _TRAINING.search(name))


class RoleFinder:
    """Tells what the values decide that a sub-graph is computed from."""

    def __init__(self, needed: SubGraph) -> None:
        self._nodes = needed.meta.nodes
        self._takers: dict[str, list[NodeDef]] = {}  # Of an output of a node.
        for node in (node for name, node in self._nodes.items() if name in needed.names):
            for source in dict.fromkeys(map(node_of, data_inputs(node))):
                self._takers.setdefault(source, []).append(node)

    def role(self, info: TensorInfo) -> Role | None:
        """What a placeholder, or a variable, decides; None where it is not known."""
        if info.shape in (None, ()) and info.dtype.name == "bool":
            return Role.SWITCH
        if info.shape not in (None, ()) or not info.dtype.is_floating:
            return None
        keeps = self._keeps(node_of(info.name))
        if keeps is None:
            keeps = bool(_KEEP.search(info.name))
            if not keeps and not _DROP.search(info.name):
                return None
        return Role.KEEP if keeps else Role.RATE

    def _keeps(self, node: str) -> bool | None:
        """Whether a number is the share that a dropout keeps (or drops); None where it is neither.

        It is found by what random numbers are compared with: the number, or one minus it.
        """
        waiting, seen = [(node, True)], set[str]()
        while waiting:
            name, itself = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for taker in self._takers.get(name, ()):
                kept = _is_kept_below(self._nodes, taker, name)
                if kept is not None:
                    return kept == itself
                if taker.op in _SAME:
                    waiting.append((taker.name, itself))
                elif taker.op == "Sub" and node_of(data_inputs(taker)[1]) == name:
                    waiting.append((taker.name, not itself))
        return None


def _is_kept_below(nodes: Mapping[str, NodeDef], taker: NodeDef, name: str) -> bool | None:
    """Whether what is drawn below `name` is kept (or dropped); None where nothing is compared."""
    inputs = [node_of(text) for text in data_inputs(taker)]
    if len(inputs) != 2 or taker.op not in _SUMS | _BELOW | _ABOVE:
        return None
    second = inputs[1] == name
    if not _is_random(nodes, inputs[0] if second else inputs[1]):
        return None
    if taker.op in _SUMS:
        return True
    return (taker.op in _BELOW) == second


def _is_random(nodes: Mapping[str, NodeDef], name: str, near: int = _NEAR) -> bool:
    """Whether a few operations at most lie between random numbers and a node."""
    node = nodes.get(name)
    if node is None or near == 0:
        return False
    if node.op in RANDOM_OPS or str(node.op).startswith(_STATELESS):
        return True
    return any(_is_random(nodes, node_of(text), near - 1) for text in data_inputs(node))
