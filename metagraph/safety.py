"""Refuses what is no mere computation in a stranger's graph, before anything of it is imported.

Here is also what every operation may do to whoever runs it, and how long a graph may take.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef

from errors import CheckpointError, first_few
from metagraph.pure_ops import PURE


def op_definitions(graph_def: GraphDef) -> Mapping[str, OpDef]:
    """What this TensorFlow says of each operation of a graph and of the functions it has in it.

    One that it does not have is left out: the import of the graph says so.
    """
    functions = graph_def.library.function
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in functions))
    ops = {node.op for node in nodes} - {function.signature.name for function in functions}
    flat = GraphDef(node=[NodeDef(name=op, op=op) for op in sorted(ops)])
    with tf.Graph().as_default() as graph:  # It refuses to work outside one.
        exported = tf.compat.v1.train.export_meta_graph(graph_def=flat, graph=graph)
    return {op.name: op for op in exported.meta_info_def.stripped_op_list.op}


# What every operation of TensorFlow may do to whoever runs it.
#
# An operation is pure (`pure_ops.py`), or it is here, under what it can do. What is in neither list
# is refused too: a denylist would let pass whatever the next release or a custom library brings.
# Some operations here are harmless with certain attributes or inputs; the tables after them say
# with which.
#
# Source: the operations registered in TensorFlow 2.21, their kernels and `tf.raw_ops`'s
# documentation. A test, test_op_list.py, holds the lists against the installed TensorFlow.

FILES = "can read or write files"
NETWORK = "can send and receive over the network"
CODE = "can run code that is not in the graph"
PROCESS = "can stop or reconfigure the process or its devices"
WAIT = "can wait for ever"
# Written as the end of "..., which can read or write files".
RISKY_GROUPS: Mapping[str, str] = {
    FILES: """
        CacheDataset CacheDatasetV2 CalibrationStatisticsSaver CloseSummaryWriter Copy CopyHost
        CreateSummaryDbWriter CreateSummaryFileWriter CSVDataset CSVDatasetV2 DatasetToTFRecord
        DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary
        DecodeProtoV2 DTensorRestoreV2 DumpTensor EncodeProto ExperimentalCSVDataset
        ExperimentalDatasetToTFRecord ExperimentalLMDBDataset ExperimentalMatchingFilesDataset
        ExperimentalSqlDataset FixedLengthRecordDataset FixedLengthRecordDatasetV2
        FixedLengthRecordReader FixedLengthRecordReaderV2 FixedUnigramCandidateSampler
        FlushSummaryWriter GenerateVocabRemapping ImmutableConst ImportEvent
        InitializeTableFromTextFile InitializeTableFromTextFileV2 ListSnapshotChunksDataset
        LMDBDataset LMDBReader LoadAndRemapMatrix LoadDataset MatchingFiles MatchingFilesDataset
        MergeV2Checkpoints PrintV2 ReaderRead ReaderReadUpTo ReaderReadUpToV2 ReaderReadV2 ReadFile
        RecordInput Restore RestoreSlice RestoreV2 Save SaveDataset SaveDatasetV2 SaveSlices SaveV2
        Skipgram SnapshotChunkDataset SnapshotDataset SnapshotDatasetReader SnapshotDatasetV2
        SnapshotNestedDatasetReader SqlDataset StatsAggregatorSetSummaryWriter
        StoreMinibatchStatisticsInFdo SummaryWriter TextLineDataset TextLineReader TextLineReaderV2
        TFRecordDataset TFRecordDatasetV2 TFRecordReader TFRecordReaderV2 WholeFileReader
        WholeFileReaderV2 WriteAudioSummary WriteFile WriteGraphSummary WriteHistogramSummary
        WriteImageSummary WriteRawProtoSummary WriteScalarSummary WriteSummary
    """,
    NETWORK: """
        AllToAll CollectiveAllToAllV2 CollectiveAllToAllV3 CollectiveAssignGroupV2
        CollectiveBcastRecv CollectiveBcastRecvV2 CollectiveBcastSend CollectiveBcastSendV2
        CollectiveGather CollectiveGatherV2 CollectiveInitializeCommunicator CollectivePermute
        CollectiveReduce CollectiveReduceScatterV2 CollectiveReduceV2 CollectiveReduceV3
        CrossReplicaSum DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3
        DataServiceDatasetV4 DeleteRpcFutureResource DistributedSave DTensorAllGather
        DTensorAllReduce DTensorAllScatter DTensorAllToAll DTensorReduceScatter NcclAllReduce
        NcclBroadcast NcclReduce Recv RegisterDataset RegisterDatasetV2 RemoteCall RpcCall
        RpcCheckStatus RpcClient RpcGetValue RpcServer RpcServerRegister RpcServerStart Send
        XlaAllReduce XlaHostCompute XlaRecv XlaRecvFromHost XlaReduceScatter XlaSend XlaSendToHost
    """,
    CODE: """
        DatasetFromGraph DeserializeIterator EagerPyFunc GeneratorDataset MlirPassthroughOp PyFunc
        PyFuncStateless TPUCompile TPUExecute TPUExecuteAndUpdateVariables XlaCallModule
        XlaCustomCall XlaCustomCallV2
    """,
    PROCESS: """
        Abort CollateTPUEmbeddingMemory ConfigureAndInitializeGlobalTPU ConfigureDistributedTPU
        ConfigureTPUEmbedding ConfigureTPUEmbeddingHost ConfigureTPUEmbeddingMemory
        ConnectTPUEmbeddingHosts DTensorSetGlobalTPUArray
        DynamicEnqueueTPUEmbeddingArbitraryTensorBatch DynamicEnqueueTPUEmbeddingRaggedTensorBatch
        EnqueueTPUEmbeddingArbitraryTensorBatch EnqueueTPUEmbeddingBatch
        EnqueueTPUEmbeddingIntegerBatch EnqueueTPUEmbeddingRaggedTensorBatch
        EnqueueTPUEmbeddingSparseBatch EnqueueTPUEmbeddingSparseTensorBatch
        ExecuteTPUEmbeddingPartitioner FileSystemSetConfiguration FinalizeTPUEmbedding
        FinalizeTPUEmbeddingV2 GetTpuTaskId IsTPUEmbeddingInitialized LoadAllTPUEmbeddingParameters
        LoadTPUEmbeddingAdadeltaParameters LoadTPUEmbeddingAdagradMomentumParameters
        LoadTPUEmbeddingAdagradParameters LoadTPUEmbeddingADAMParameters
        LoadTPUEmbeddingCenteredRMSPropParameters LoadTPUEmbeddingFrequencyEstimatorParameters
        LoadTPUEmbeddingFTRLParameters LoadTPUEmbeddingMDLAdagradLightParameters
        LoadTPUEmbeddingMomentumParameters LoadTPUEmbeddingProximalAdagradParameters
        LoadTPUEmbeddingProximalYogiParameters LoadTPUEmbeddingRMSPropParameters
        LoadTPUEmbeddingStochasticGradientDescentParameters RecvTPUEmbeddingActivations
        RetrieveAllTPUEmbeddingParameters RetrieveTPUEmbeddingAdadeltaParameters
        RetrieveTPUEmbeddingAdagradMomentumParameters RetrieveTPUEmbeddingAdagradParameters
        RetrieveTPUEmbeddingADAMParameters RetrieveTPUEmbeddingCenteredRMSPropParameters
        RetrieveTPUEmbeddingFrequencyEstimatorParameters RetrieveTPUEmbeddingFTRLParameters
        RetrieveTPUEmbeddingMDLAdagradLightParameters RetrieveTPUEmbeddingMomentumParameters
        RetrieveTPUEmbeddingProximalAdagradParameters RetrieveTPUEmbeddingProximalYogiParameters
        RetrieveTPUEmbeddingRMSPropParameters
        RetrieveTPUEmbeddingStochasticGradientDescentParameters SendTPUEmbeddingGradients
        ShutdownDistributedTPU ShutdownTPUSystem TpuHandleToProtoKey TPUReshardVariables
        UpdateTaskIdAndGlobalCoreArray WorkerHeartbeat XlaRecvTPUEmbeddingActivations
        XlaRecvTPUEmbeddingActivationsV2 XlaRecvTPUEmbeddingDeduplicationData
        XlaRecvTPUEmbeddingDeduplicationDataV2 XlaSendTPUEmbeddingGradients
        XlaSendTPUEmbeddingGradientsV2
    """,
    WAIT: """
        AccumulatorTakeGradient BarrierTakeMany ExperimentalSleepDataset InfeedDequeue
        InfeedDequeueTuple InfeedEnqueue InfeedEnqueuePrelinearizedBuffer InfeedEnqueueTuple MapPeek
        MapStage MapUnstage MapUnstageNoKey MutexLock OrderedMapPeek OrderedMapStage
        OrderedMapUnstage OrderedMapUnstageNoKey OutfeedDequeue OutfeedDequeueTuple
        OutfeedDequeueTupleV2 OutfeedDequeueV2 OutfeedEnqueue OutfeedEnqueueTuple QueueDequeue
        QueueDequeueMany QueueDequeueManyV2 QueueDequeueUpTo QueueDequeueUpToV2 QueueDequeueV2
        QueueEnqueue QueueEnqueueMany QueueEnqueueManyV2 QueueEnqueueV2
        ResourceAccumulatorTakeGradient SleepDataset SparseAccumulatorTakeGradient Stage StagePeek
        Unstage
    """,
}
RISKS: Mapping[str, str] = {
    op: risk for risk, group in RISKY_GROUPS.items() for op in group.split()
}


# Harmless where the attribute, or its default where the node has none, matches in full.
HARMLESS_ATTRIBUTE: Mapping[str, tuple[str, re.Pattern[bytes]]] = {
    # Other streams are `file://` and a path.
    "PrintV2": ("output_stream", re.compile(rb"stdout|stderr|log\((info|warning|error)\)")),
    # Descriptors that are linked in, or that are in the attribute itself; else it is a file.
    "DecodeProtoV2": ("descriptor_source", re.compile(rb"(local://|bytes://.*)?", re.DOTALL)),
    "EncodeProto": ("descriptor_source", re.compile(rb"(local://|bytes://.*)?", re.DOTALL)),
    # Without a file, the distribution is in the attribute `unigrams`.
    "FixedUnigramCandidateSampler": ("vocab_file", re.compile(rb"")),
}

# Harmless where the input of this index is a constant empty text: a cache in memory.
HARMLESS_IF_EMPTY: Mapping[str, int] = {"CacheDataset": 1, "CacheDatasetV2": 1}


# Refuses what is no mere computation in a stranger's graph, before anything of it is imported.

_UNKNOWN = "is not on the list of operations of this TensorFlow"
_NAMED = 3  # Offenders that a message names; a hostile graph may have thousands.
_LONGEST = 200  # Characters of a name in a message.


class Offender(NamedTuple):
    """A node that may do more than compute.

    Attributes:
      node: in the graph that was looked at, not a copy.
      function: the library function that it is in; empty for the graph itself.
      risk: what it can do, as in `which can read or write files`.
    """

    node: NodeDef
    function: str
    risk: str

    def __str__(self) -> str:
        place = f" of function {_shown(self.function)}" if self.function else ""
        return (
            f"node {_shown(self.node.name)}{place} runs the operation {_shown(self.node.op)}, "
            f"which {self.risk}"
        )


def check_operations(graph_def: GraphDef, where: str, trust_graph: bool) -> None:
    """Sees that a graph only computes, its library functions included.

    Args:
      graph_def: what is to be imported and run; a fed tensor's node is left out.
      where: the file it came from, for the message.
      trust_graph: only warn.

    Raises:
      CheckpointError: an operation may do more, or is unknown; the message names the first few.
    """
    found = list(offenders(graph_def))
    if not found:
        return
    named = "; ".join(str(offender) for offender in found[:_NAMED])
    rest = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    if not trust_graph:
        raise CheckpointError(
            f"{where}: {named}{rest}. Feed {_in_place_of(found[0], graph_def)}, or, if you trust "
            "the file, run it all the same with --trust_graph"
        )
    logging.warning("%s: %s%s; run all the same, as --trust_graph asks", where, named, rest)


def offenders(graph_def: GraphDef) -> Iterator[Offender]:
    """The nodes of a graph and of its library functions that may do more than compute.

    Every function of the library is looked at, whoever calls it. A function that is called and is
    not in the library, a gradient among them, cannot be run: TensorFlow itself refuses it.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    for node, risk in _risky(graph_def.node, functions):
        yield Offender(node, "", risk)
    for function in graph_def.library.function:
        for node, risk in _risky(function.node_def, functions):
            yield Offender(node, function.signature.name, risk)


def disarm(graph_def: GraphDef) -> None:
    """Takes the kernels from what `check_operations` refuses, to look at a graph without a run.

    An import alone runs operations: shape inference evaluates whatever follows from constants, and
    a stateless operation may well write a file (DebugIdentity). With a kernel label that no kernel
    has, an operation is imported, has its static dtypes and shapes, and can never run.
    """
    for offender in offenders(graph_def):
        offender.node.attr["_kernel"].s = b"refused"


def _in_place_of(offender: Offender, graph_def: GraphDef) -> str:
    """What can be fed so that an offender is not needed."""
    follows = "a tensor that follows it"
    if offender.function:
        return follows
    definitions = op_definitions(graph_def)
    without = {op for op, definition in definitions.items() if not definition.output_arg}
    if offender.node.op not in without:
        return f"{_shown(offender.node.name)}:0 or {follows}"
    waiting = _waiting(offender.node.name, graph_def, without)
    return follows if waiting is None else f"{_shown(waiting)}:0, which waits for it"


def _waiting(name: str, graph_def: GraphDef, without: Collection[str]) -> str | None:
    """The nearest node with an output that waits for a node of an operation without one."""
    waiting_for: dict[str, list[NodeDef]] = {}
    for node in graph_def.node:
        for text in node.input:
            if text.startswith("^"):
                waiting_for.setdefault(text[1:], []).append(node)
    names = [name]
    for reached in names:  # It grows as it goes.
        for node in waiting_for.pop(reached, []):
            if node.op not in without:
                return str(node.name)
            names.append(node.name)
    return None


def _shown(name: str) -> str:
    """A name out of a file that nothing has been checked of yet, fit for one line."""
    return name if name.isprintable() and len(name) <= _LONGEST else ascii(name[:_LONGEST])


def _risky(nodes: Iterable[NodeDef], functions: set[str]) -> Iterator[tuple[NodeDef, str]]:
    """The nodes of one body that are not harmless, each with what it can do."""
    suspects = [node for node in nodes if node.op not in PURE]
    if not suspects:
        return
    body = {node.name: node for node in nodes}
    for node in suspects:
        risk = RISKS.get(node.op)
        if risk is None:
            if node.op not in functions:  # Old graphs call a function by an operation of its name.
                yield node, _UNKNOWN
        elif not is_harmless(node, body):
            yield node, risk


def is_harmless(node: NodeDef, body: Mapping[str, NodeDef]) -> bool:
    """Whether a risky operation's attributes or inputs are such that it only computes."""
    if node.op in HARMLESS_ATTRIBUTE:
        name, pattern = HARMLESS_ATTRIBUTE[node.op]
        if name not in node.attr:
            return True
        value = node.attr[name]  # A placeholder, filled in by whoever calls the function, is no s.
        return value.HasField("s") and pattern.fullmatch(value.s) is not None
    if node.op in HARMLESS_IF_EMPTY:
        source = _input(node, HARMLESS_IF_EMPTY[node.op])
        return source in body and _is_empty_text(body[source])
    return False


def _input(node: NodeDef, index: int) -> str:
    """The node that an input comes from; empty where there is none."""
    return node.input[index].partition(":")[0] if index < len(node.input) else ""


def _is_empty_text(node: NodeDef) -> bool:
    if node.op != "Const" or "value" not in node.attr:
        return False
    tensor = node.attr["value"].tensor
    return list(tensor.string_val) == [b""] and not tensor.tensor_content


# How long a graph may take, and what is said where it takes longer.

GRACE_SECONDS = 5.0  # After the limit, for a session to end by itself.
_SHOWN = 3
_YEAR_SECONDS = 365 * 24 * 3600
RUN = "one run"  # Of the fetched tensors, for some rows.


@dataclass(frozen=True)
class TimeLimit:
    """What each thing may take that TensorFlow is made to do with a graph: its import, a run.

    A session cancels queues and loops when its time is over. A kernel that computes is waited for,
    and an import, which folds constants, cannot be cancelled at all: nothing in a process can stop
    those but its end.

    Attributes:
      seconds: 0 for no limit. More than a year, for which no clock here is made, counts as none.
      end_after: ends the process with a line, so many seconds from now; each call stands in place
        of the one before, and 0 is for never. None to wait for whatever does not end.
    """

    seconds: float = 60.0
    end_after: Callable[[float, str], None] | None = None

    @property
    def milliseconds(self) -> int:
        """As `RunOptions.timeout_in_ms` takes it: 0 is no limit, and all below 1 counts as 1."""
        return max(1, round(self.seconds * 1000)) if self._is_limit else 0

    def start(self, what: str) -> None:
        """Has the process ended where `what`, such as `RUN`, does not `stop` in time."""
        if self.end_after is not None and self._is_limit:
            line = f"{self._took(what)}, and does not end: {_more_time(what)}"
            self.end_after(self.seconds + GRACE_SECONDS, line)

    def stop(self) -> None:
        """Ends what `start` began."""
        if self.end_after is not None and self._is_limit:
            self.end_after(0.0, "")

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """From `start` to `stop`; not to be nested."""
        self.start(what)
        try:
            yield
        finally:
            self.stop()

    def overrun(self, what: str, graph: tf.Graph) -> str:
        """One line on why a run of `graph` may have taken longer than it may.

        The session does not tell what it was doing, the graph does: where it has operations that
        wait for others, they are named, since a queue that nobody fills is nearly always the cause.
        """
        waiting = [op for op in graph.get_operations() if _may_wait(op.type)]
        if not waiting:
            return f"{self._took(what)}: {_more_time(what)}"
        described = first_few([f"{op.name} ({op.type})" for op in waiting], _SHOWN)
        return (
            f"{self._took(what)}: it waits for {described}, which nobody fills; {_advice(waiting)}"
        )

    @property
    def _is_limit(self) -> bool:
        return 0 < self.seconds <= _YEAR_SECONDS

    def _took(self, what: str) -> str:
        return f"{what} took longer than --time_limit={self.seconds:g} seconds"


def _more_time(what: str) -> str:
    more = "give it more (0 is no limit)"
    return f"{more}, or fewer rows a run with --batch_size" if what == RUN else more


def _may_wait(kind: str) -> bool:
    """Whether such an operation waits for others; a reader does so for a queue of file names."""
    return RISKS.get(kind) == WAIT or kind.startswith("ReaderRead")


def _advice(waiting: Iterable[tf.Operation]) -> str:
    """The tensors that can be fed in place of those that never come."""
    tensors = [output.name for op in waiting for output in op.outputs][:_SHOWN]
    return f"feed {', '.join(tensors)} in its place" if tensors else "feed what comes after it"
