"""A graph from a meta graph file, with the values of its checkpoint, ready to run.

A file is data, never code. Only the nodes that the fetched tensors need are imported; the variables
are read from the checkpoint and assigned by operations of our own; the file's own restore, save and
initializer operations are never run.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints.bundle import make_fed_callable
from errors import CheckpointError, first_few
from metagraph.casting import Array, as_numpy_dtype
from metagraph.graph import nodes_by_op
from metagraph.importing import disarmed_graph, import_graph, reason_of_run, tensor_of
from metagraph.meta import MetaGraphFile, TensorInfo
from metagraph.safety import RANDOM_OPS, RUN, TimeLimit, check_operations
from metagraph.tables import with_tables
from metagraph.values import Restoring, Step, free_scope, placeholder, stand_in
from metagraph.variables import RESOURCE_VARIABLE

_START = "the start of the graph"
_SHOWN = 3


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

    @property
    def random_nodes(self) -> list[str]:
        """The nodes that draw anew in each run, a fixed seed or not."""
        found = self.nodes_by_op.items()
        return [name for op, names in found if op in RANDOM_OPS for name in names]

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

    Raises:
      CheckpointError: a tensor does not exist, or the graph cannot be imported.
    """
    graph = disarmed_graph(meta, names)
    return tuple(_info(name, tensor_of(graph, name)) for name in names)


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


def random_outputs(
    graph: InferenceGraph, fed: Sequence[Array], results: Sequence[Array]
) -> list[str]:
    """The fetched tensors that a second run on what was `fed` gives another value of.

    Args:
      graph: not run again where no node of it is random.
      fed: what `results` were computed from.
      results: of the first run, in the order of `fetches`. NaN equals NaN.
    """
    if not graph.random_nodes:
        return []
    triples = zip(graph.fetches, results, graph.run(*fed), strict=True)
    return [info.name for info, first, second in triples if not _equal(first, second)]


def _equal(first: Array, second: Array) -> bool:
    first, second = as_numpy_dtype(first), as_numpy_dtype(second)
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")


def warn_if_random(
    graph: InferenceGraph, fed: Sequence[Array], results: Sequence[Array]
) -> list[str]:
    """Warns of `random_outputs`, and returns them."""
    found = random_outputs(graph, fed, results)
    if found:
        logging.warning(
            "%s: another value at each run on the same input; random: %s. If it is dropout, feed "
            "its keep probability or its switch, or the tensor after it",
            ", ".join(found),
            first_few(graph.random_nodes, _SHOWN),
        )
    return found
