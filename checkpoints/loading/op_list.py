"""What every operation of TensorFlow may do to whoever runs it.

An operation is pure (`pure_ops.py`), or it is here, under what it can do. What is in
neither list is refused too: a denylist would let pass whatever the next release or a custom
library brings. Some operations here are harmless with certain attributes or inputs; the tables
after them say with which.

Source: the operations registered in TensorFlow 2.21, their kernels and `tf.raw_ops`'s
documentation. A test, test_op_list.py, holds the lists against the installed TensorFlow.
"""

import re
from collections.abc import Mapping

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
