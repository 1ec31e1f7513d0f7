"""Graphs with an operation that does more than compute, each built by plain TensorFlow.

At least one of every family: files, network, code, the process, and waits. None is run while it is
built.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
raw = tf.raw_ops

NODE = "risky"  # The name of the node that each of RISKY adds.

# Takes the path of a file that does not exist; adds the operation to the default graph.
Build = Callable[[str], object]

_ONE = {"output_types": [tf.float32], "output_shapes": [[]]}
_TEXT = {"output_types": [tf.string], "output_shapes": [[]]}


def _numbers() -> Any:
    return raw.TensorDataset(components=[np.float32(1)], output_shapes=[[]])


def _texts() -> Any:
    return raw.TensorDataset(components=[b"a"], output_shapes=[[]])


def _queue() -> Any:
    return raw.FIFOQueueV2(component_types=[tf.string])


def _function(build: Callable[..., Any], *dtypes: tf.DType) -> Any:
    """A library function, of scalars of these dtypes."""
    return tf.function(build).get_concrete_function(*(tf.TensorSpec([], d) for d in dtypes))


def written(path: str) -> bytes:
    """A graph that writes a file, as bytes."""
    with tf.Graph().as_default() as graph:
        tf.io.write_file(path, "owned")
        content: bytes = graph.as_graph_def().SerializeToString()
    return content


def _generator() -> object:
    identity = _function(lambda x: x, tf.int64)
    functions = {f"{part}_func": identity for part in ("init", "next", "finalize")}
    others: dict[str, Any] = {
        f"{part}_func_other_args": [] for part in ("init", "next", "finalize")
    }
    types: dict[str, Any] = {"output_types": [tf.int64], "output_shapes": [[]]}
    return raw.GeneratorDataset(**functions, **others, **types, name=NODE)


def _data_service() -> object:
    return raw.DataServiceDatasetV4(
        dataset_id="1",
        processing_mode="",
        address="localhost:1",
        protocol="grpc",
        job_name="",
        consumer_index=-1,
        num_consumers=-1,
        max_outstanding_requests=-1,
        iteration_counter=raw.DummyIterationCounter(),
        uncompress_fn=_function(lambda x: x, tf.variant),
        **_ONE,
        name=NODE,
    )


FILES: Mapping[str, Build] = {
    "ReadFile": lambda path: raw.ReadFile(filename=path, name=NODE),
    "WriteFile": lambda path: raw.WriteFile(filename=path, contents="owned", name=NODE),
    "MatchingFiles": lambda path: raw.MatchingFiles(pattern=path, name=NODE),
    "MatchingFilesDataset": lambda path: raw.MatchingFilesDataset(patterns=path, name=NODE),
    "WholeFileReaderV2": lambda _: raw.WholeFileReaderV2(name=NODE),
    "TextLineReaderV2": lambda _: raw.TextLineReaderV2(name=NODE),
    "TFRecordReaderV2": lambda _: raw.TFRecordReaderV2(name=NODE),
    "FixedLengthRecordReaderV2": lambda _: raw.FixedLengthRecordReaderV2(record_bytes=1, name=NODE),
    "ReaderReadV2": lambda _: raw.ReaderReadV2(
        reader_handle=raw.IdentityReaderV2(), queue_handle=_queue(), name=NODE
    ),
    "TextLineDataset": lambda path: raw.TextLineDataset(
        filenames=[path], compression_type="", buffer_size=0, name=NODE
    ),
    "TFRecordDataset": lambda path: raw.TFRecordDataset(
        filenames=[path], compression_type="", buffer_size=0, name=NODE
    ),
    "FixedLengthRecordDataset": lambda path: raw.FixedLengthRecordDataset(
        filenames=[path],
        header_bytes=0,
        record_bytes=1,
        footer_bytes=0,
        buffer_size=0,
        name=NODE,
    ),
    "LMDBDataset": lambda path: raw.LMDBDataset(filenames=[path], **_TEXT, name=NODE),
    "SqlDataset": lambda path: raw.SqlDataset(
        driver_name="sqlite", data_source_name=path, query="select 1", **_TEXT, name=NODE
    ),
    "CacheDataset": lambda path: raw.CacheDataset(
        input_dataset=_numbers(), filename=path, **_ONE, name=NODE
    ),
    "CacheDatasetV2": lambda path: raw.CacheDatasetV2(
        input_dataset=_numbers(), filename=path, cache=raw.DummyMemoryCache(), **_ONE, name=NODE
    ),
    "SaveDataset": lambda path: raw.SaveDataset(
        input_dataset=_numbers(),
        path=path,
        shard_func_other_args=[],
        shard_func=_function(lambda _: np.int64(0), tf.float32),
        name=NODE,
    ),
    "LoadDataset": lambda path: raw.LoadDataset(
        path=path,
        reader_func_other_args=[],
        reader_func=_function(lambda x: x, tf.variant),
        **_ONE,
        name=NODE,
    ),
    "SnapshotDataset": lambda path: raw.SnapshotDataset(
        input_dataset=_numbers(), path=path, **_ONE, name=NODE
    ),
    "DatasetToTFRecord": lambda path: raw.DatasetToTFRecord(
        input_dataset=_texts(), filename=path, compression_type="", name=NODE
    ),
    "InitializeTableFromTextFileV2": lambda path: raw.InitializeTableFromTextFileV2(
        table_handle=raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64),
        filename=path,
        key_index=-2,
        value_index=-1,
        name=NODE,
    ),
    "SaveV2": lambda path: raw.SaveV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[np.float32(1)], name=NODE
    ),
    "RestoreV2": lambda path: raw.RestoreV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32], name=NODE
    ),
    "MergeV2Checkpoints": lambda path: raw.MergeV2Checkpoints(
        checkpoint_prefixes=[path], destination_prefix=path, name=NODE
    ),
    "LoadAndRemapMatrix": lambda path: raw.LoadAndRemapMatrix(
        ckpt_path=path,
        old_tensor_name="a",
        row_remapping=np.zeros(1, np.int64),
        col_remapping=np.zeros(0, np.int64),
        initializing_values=np.zeros(0, np.float32),
        num_rows=1,
        num_cols=1,
        name=NODE,
    ),
    "GenerateVocabRemapping": lambda path: raw.GenerateVocabRemapping(
        new_vocab_file=path, old_vocab_file=path, new_vocab_offset=0, num_new_vocab=1, name=NODE
    ),
    "CreateSummaryFileWriter": lambda path: raw.CreateSummaryFileWriter(
        writer=raw.SummaryWriter(),
        logdir=path,
        max_queue=1,
        flush_millis=1,
        filename_suffix="",
        name=NODE,
    ),
    "CreateSummaryDbWriter": lambda path: raw.CreateSummaryDbWriter(
        writer=raw.SummaryWriter(),
        db_uri=path,
        experiment_name="",
        run_name="",
        user_name="",
        name=NODE,
    ),
    "ImmutableConst": lambda path: raw.ImmutableConst(
        dtype=tf.float32, shape=[], memory_region_name=path, name=NODE
    ),
    "PrintV2": lambda path: raw.PrintV2(input="owned", output_stream=f"file://{path}", name=NODE),
    "DebugIdentity": lambda path: raw.DebugIdentity(
        input=1.0, debug_urls=[f"file://{path}"], name=NODE
    ),
    "DebugIdentityV2": lambda path: raw.DebugIdentityV2(
        input=1.0, debug_urls=[f"file://{path}"], tfdbg_run_id="1", name=NODE
    ),
    "DecodeProtoV2": lambda path: raw.DecodeProtoV2(
        bytes=[b""],
        message_type="A",
        field_names=[],
        output_types=[],
        descriptor_source=path,
        name=NODE,
    ),
}

OTHERS: Mapping[str, Build] = {
    "DataServiceDatasetV4": lambda _: _data_service(),
    "RegisterDatasetV2": lambda _: raw.RegisterDatasetV2(
        dataset=_numbers(),
        address="localhost:1",
        protocol="grpc",
        external_state_policy=0,
        name=NODE,
    ),
    "RemoteCall": lambda _: raw.RemoteCall(
        target="/device:CPU:0",
        args=[1.0],
        Tout=[tf.float32],
        f=_function(lambda x: x, tf.float32),
        name=NODE,
    ),
    "CollectiveReduce": lambda _: raw.CollectiveReduce(
        input=1.0,
        group_size=2,
        group_key=1,
        instance_key=1,
        merge_op="Add",
        final_op="Id",
        subdiv_offsets=[0],
        name=NODE,
    ),
    "PyFunc": lambda _: raw.PyFunc(input=[], token="f", Tout=[tf.float32], name=NODE),
    "PyFuncStateless": lambda _: raw.PyFuncStateless(
        input=[], token="f", Tout=[tf.float32], name=NODE
    ),
    "EagerPyFunc": lambda _: raw.EagerPyFunc(input=[], token="f", Tout=[tf.float32], name=NODE),
    "GeneratorDataset": lambda _: _generator(),
    "DatasetFromGraph": lambda path: raw.DatasetFromGraph(graph_def=written(path), name=NODE),
    "DeserializeIterator": lambda _: raw.DeserializeIterator(
        resource_handle=raw.IteratorV2(shared_name="", container="", **_ONE),
        serialized=_numbers(),
        name=NODE,
    ),
    "Abort": lambda _: raw.Abort(name=NODE),
    "FileSystemSetConfiguration": lambda _: raw.FileSystemSetConfiguration(
        scheme="file", key="a", value="b", name=NODE
    ),
    "QueueDequeueV2": lambda _: raw.QueueDequeueV2(
        handle=_queue(), component_types=[tf.string], name=NODE
    ),
    "Unstage": lambda _: raw.Unstage(dtypes=[tf.float32], name=NODE),
    "BarrierTakeMany": lambda _: raw.BarrierTakeMany(
        handle=raw.Barrier(component_types=[tf.float32]),
        num_elements=1,
        component_types=[tf.float32],
        name=NODE,
    ),
    "MutexLock": lambda _: raw.MutexLock(mutex=raw.MutexV2(), name=NODE),
}

RISKY: Mapping[str, Build] = {**FILES, **OTHERS}
