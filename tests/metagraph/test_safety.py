"""What may do more than compute is refused before it is imported, and left alone off the path.

The table of operations is held against the installed TensorFlow. And the limit on time.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef, OpList
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.python.client import pywrap_tf_session

from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.safety import (
    GRACE_SECONDS,
    OPERATIONS,
    PURE,
    RISKS,
    TimeLimit,
    check_operations,
    offenders,
    only_prints,
)
from metagraph.session import describe_tensors
from tests.metagraph.made import refused, run, saved
from tests.prediction import stock

v1 = tf.compat.v1
raw = tf.raw_ops

NODE = "risky"

# Takes the path of a file that does not exist; adds an operation to the default graph.
Build = Callable[[str], object]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The operations of all that is imported from here on, functions included, as it goes on."""
    seen = set[str]()

    def spy(graph_def: GraphDef, *arguments: Any, **options: Any) -> Any:
        bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
        seen.update(node.op for nodes in bodies for node in nodes)
        return import_graph_def(graph_def, *arguments, **options)

    import_graph_def = tf.import_graph_def
    monkeypatch.setattr(tf, "import_graph_def", spy)
    return seen


def _checkpoint(folder: Path, build: Build) -> Path:
    """y = 3 x; `bad` is y after what `build` adds: the node that is called `risky`, at any depth.

    Returns:
      The `.meta` file. The path that `build` gets is `victim` beside it.
    """
    with stock.checkpoint(folder / "m"):
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.multiply(v1.get_variable("v", initializer=np.float32(3)), x, name="y")
        before = set(v1.get_default_graph().get_operations())
        build(str(folder / "victim"))
        added = [op for op in v1.get_default_graph().get_operations() if op not in before]
        with tf.control_dependencies([op for op in added if op.name == NODE] or added):
            tf.identity(y, name="bad")
    return folder / "m.meta"


def _run(path: Path, fetch: str, trust_graph: bool = False) -> Any:
    return _run_meta(read_meta_graph(str(path)), fetch, trust_graph)


def _run_meta(meta: MetaGraphFile, fetch: str, trust_graph: bool = False) -> Any:
    return run(meta, [fetch], {"x:0": np.float32(2)}, trust_graph=trust_graph)[0]


def _graph(build: Callable[[], object]) -> GraphDef:
    with tf.Graph().as_default() as graph:
        build()
        return graph.as_graph_def()


def _refused(graph_def: GraphDef) -> list[str]:
    return [offender.node.op for offender in offenders(graph_def)]


# At least one of every family.
RISKY = {
    "can read or write files": """
        ReadFile WriteFile MatchingFiles MatchingFilesDataset WholeFileReaderV2 TextLineReaderV2
        TFRecordReaderV2 FixedLengthRecordReaderV2 ReaderReadV2 TextLineDataset TFRecordDataset
        FixedLengthRecordDataset LMDBDataset SqlDataset CacheDataset CacheDatasetV2 SaveDataset
        LoadDataset SnapshotDataset DatasetToTFRecord InitializeTableFromTextFileV2 SaveV2 RestoreV2
        MergeV2Checkpoints LoadAndRemapMatrix GenerateVocabRemapping CreateSummaryFileWriter
        CreateSummaryDbWriter ImmutableConst DebugIdentity DebugIdentityV2 DecodeProtoV2""",
    "can send and receive over the network": """
        DataServiceDatasetV4 RegisterDatasetV2 RemoteCall CollectiveReduce""",
    "can run code that is not in the graph": """
        PyFunc PyFuncStateless EagerPyFunc GeneratorDataset DatasetFromGraph DeserializeIterator""",
    "can stop or reconfigure the process or its devices": "Abort FileSystemSetConfiguration",
    "can wait for ever": "QueueDequeueV2 Unstage BarrierTakeMany MutexLock",
}


@pytest.fixture(scope="module")
def tripling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("safe"), lambda _: tf.no_op())


@pytest.mark.parametrize(
    ("risk", "op"), [(risk, op) for risk, ops in RISKY.items() for op in ops.split()]
)
def test_a_risky_operation_is_refused_where_it_is_needed_and_nowhere_else(
    risk: str, op: str, tripling: Path, imported: set[str]
) -> None:
    meta = read_meta_graph(str(tripling))
    meta.proto.graph_def.node.add(name=NODE, op=op)
    meta.nodes["bad"].input.append(f"^{NODE}")
    message = (
        rf"m\.meta: node {NODE} runs the operation {op}, which {risk}\. Feed ({NODE}:0 or a tensor "
        r"that follows it|bad:0, which waits for it), or, .*with --trust_graph$"
    )
    with refused(message):
        _run_meta(meta, "bad:0")
    assert _run_meta(meta, "y:0") == 6
    assert op not in imported


def test_every_operation_that_may_do_more_is_refused() -> None:
    graph_def = GraphDef(node=[NodeDef(name=op, op=op) for op in RISKS if op != "PrintV2"])
    assert set(_refused(graph_def)) == RISKS.keys() - {"PrintV2"}


def test_the_advice_can_be_followed_where_there_is_no_output(tmp_path: Path) -> None:
    """What waits for it may have none either."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.multiply(v1.get_variable("v", initializer=np.float32(3)), x)
        write = raw.WriteFile(filename=str(tmp_path / "victim"), contents="owned", name=NODE)
        with tf.control_dependencies([tf.group(tf.group(write), name="all")]):
            waits = tf.identity(y, name="waits")
        tf.add(waits, 1, name="bad")

    meta = saved(tmp_path, build)
    with refused("Feed waits:0, which waits for it, or, if you trust"):
        _run_meta(meta, "bad:0")
    assert run(meta, ["bad:0"], {"waits:0": np.float32(5)})[0] == 6


def test_the_advice_is_the_output_that_is_taken(tmp_path: Path) -> None:
    def build() -> None:
        queue = v1.FIFOQueue(4, [tf.int64, tf.float32], [[], []])
        tf.multiply(queue.dequeue(name="taken")[1], 3.0, name="y")

    with refused("can wait for ever. Feed taken:1 or a tensor that follows it"):
        run(saved(tmp_path, build), ["y:0"])


def _write(path: str) -> tf.Tensor:
    raw.WriteFile(filename=path, contents="owned", name=NODE)
    return tf.constant(1)


def _write_two_functions_deep(path: str) -> None:
    inner = tf.function(lambda: _write(path))
    tf.function(lambda: inner() + 1)()


def _write_in_a_branch(path: str) -> None:
    condition = v1.placeholder_with_default(False, [])
    tf.cond(condition, lambda: _write(path), lambda: tf.constant(2))


def _write_in_a_dataset(path: str) -> None:
    data = tf.data.Dataset.range(3).map(lambda _: _write(path))
    v1.data.make_one_shot_iterator(data).get_next()


@pytest.mark.parametrize(
    "build", [_write_two_functions_deep, _write_in_a_branch, _write_in_a_dataset]
)
def test_an_operation_deep_in_functions_is_found(
    build: Build, tmp_path: Path, imported: set[str]
) -> None:
    path = _checkpoint(tmp_path, build)
    with refused(rf"node {NODE} of function \S+ runs the operation WriteFile"):
        _run(path, "bad:0")
    assert _run(path, "y:0") == 6
    assert "WriteFile" not in imported
    assert not (tmp_path / "victim").exists()


def _poison_restore(proto: MetaGraphDef, path: Path) -> None:
    """Makes restoring, saving and initializing write a file, and `bad` wait for the first."""
    poison = _graph(lambda: _write(str(path)))
    for node in poison.node:
        node.name = f"poison/{node.name}"
        node.input[:] = [f"poison/{name}" for name in node.input]
    proto.graph_def.node.extend(poison.node)
    for node in proto.graph_def.node:
        if node.name.startswith("save/") or "Assign" in node.name or node.name == "init":
            node.input.append(f"^poison/{NODE}")
        if node.name == "bad":
            node.input.append("^save/restore_all")


def test_a_poisoned_restore_is_never_run(tmp_path: Path, imported: set[str]) -> None:
    path = _checkpoint(tmp_path, lambda _: tf.no_op())
    victim = tmp_path / "victim"
    stock.edit_meta(path, lambda proto: _poison_restore(proto, victim))
    assert _run(path, "y:0") == 6
    with pytest.raises(CheckpointError, match=f"node poison/{NODE} runs the .*WriteFile") as caught:
        _run(path, "bad:0")
    assert "node save/RestoreV2 runs the operation RestoreV2" in str(caught.value)
    assert not {"WriteFile", "RestoreV2"} & imported
    assert not victim.exists()
    stock.run(path, ["y:0"], {"x:0": np.float32(2)})
    assert victim.exists()  # The poison is real: it harms a stock client.


def test_looking_at_a_tensor_runs_nothing(tmp_path: Path) -> None:
    """TensorFlow evaluates what a shape follows from, files written on the way included."""

    victim = tmp_path / "victim"

    def build() -> None:
        size = raw.DebugIdentity(
            input=[2, 3], tensor_name="a:0", debug_urls=[f"file://{tmp_path}/built"], name=NODE
        )
        tf.reshape(v1.placeholder(tf.float32, [None]), size, name="shaped")

    meta = saved(tmp_path, build)
    meta.nodes[NODE].attr["debug_urls"].list.s[:] = [f"file://{victim}".encode()]
    (info,) = describe_tensors(meta, ["shaped:0"])
    assert (info.dtype, info.shape) == (tf.float32, (None, None))
    assert not victim.exists()
    with tf.Graph().as_default():
        tf.import_graph_def(meta.proto.graph_def)
    assert victim.exists()  # A plain import does write.


def test_an_unknown_operation_is_named() -> None:
    graph_def = _graph(lambda: tf.constant(1, name="one"))
    graph_def.node.add(name="odd", op="FromAnotherWorld")
    with refused("node odd runs the operation FromAnotherWorld, which is not on the list"):
        check_operations(graph_def, "here", trust_graph=False)
    check_operations(graph_def, "here", trust_graph=True)


def test_a_function_is_called_by_an_operation_of_its_name() -> None:
    """As in the graphs of TensorFlow 1; a function cannot hide behind the name of an operation."""
    graph_def = _graph(lambda: tf.constant(1, name="one"))
    graph_def.node.add(name="call", op="my_function")
    function = graph_def.library.function.add()
    function.signature.name = "my_function"
    function.node_def.add(name="inside", op="Add")
    assert _refused(graph_def) == []
    function.node_def.add(name="deeper", op="other_function")
    assert _refused(graph_def) == ["other_function"]
    graph_def.library.function.add().signature.name = "other_function"
    assert _refused(graph_def) == []
    graph_def.node.add(name="read", op="ReadFile")
    graph_def.library.function.add().signature.name = "ReadFile"
    assert _refused(graph_def) == ["ReadFile"]


@pytest.mark.parametrize("op", ["PartitionedCall", "StatefulPartitionedCall"])
def test_an_operation_is_no_function(op: str, tmp_path: Path) -> None:
    """One that is named in place of a function is not looked at, as it is never called."""
    victim = tmp_path / "victim"
    graph_def = _graph(lambda: (tf.constant(str(victim), name="a"), tf.constant("b", name="b")))
    node = graph_def.node.add(name="call", op=op, input=["a", "b"])
    node.attr["f"].func.name = "WriteFile"
    node.attr["Tin"].list.type.extend([tf.string.as_datatype_enum] * 2)
    node.attr["Tout"].list.SetInParent()
    assert _refused(graph_def) == []
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        with pytest.raises(tf.errors.InvalidArgumentError, match="find function"):
            session.run(graph.get_operation_by_name("call"))
    assert not victim.exists()


def test_a_name_cannot_break_the_message() -> None:
    graph_def = GraphDef()
    graph_def.node.add(name="a\n\x1b[2Jb", op="ReadFile")
    graph_def.node.add(name="c", op="x" * 100_000)
    with pytest.raises(CheckpointError) as caught:
        check_operations(graph_def, "here", trust_graph=False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_many_offenders_are_counted(tmp_path: Path) -> None:
    def build() -> None:
        for i in range(2000):
            raw.ReadFile(filename=str(tmp_path), name=f"read{i}")

    with pytest.raises(CheckpointError) as caught:
        check_operations(_graph(build), "here", trust_graph=False)
    assert len(re.findall("runs the operation", str(caught.value))) == 3
    assert "; and 1997 more" in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "risky"),
    [("", False), ("log(info)", False), ("file:///a", True), ("log(info)\nfile:///a", True)],
)
def test_printing_is_harmless_but_into_a_file(stream: str, risky: bool) -> None:
    options = {"output_stream": stream} if stream else {}
    assert bool(_refused(_graph(lambda: raw.PrintV2(input="a", **options)))) == risky


def test_what_the_caller_of_a_function_fills_in_is_not_harmless() -> None:
    graph_def = GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="a", op="PrintV2").attr["output_stream"].placeholder = "stream"
    assert len(_refused(graph_def)) == 1


def test_a_graph_in_a_constant_is_not_run(tmp_path: Path) -> None:
    """What DatasetFromGraph would run is bytes to the check, and so the operation is refused."""
    written = _graph(lambda: tf.io.write_file(str(tmp_path / "victim"), "owned"))
    content = written.SerializeToString()
    graph_def = _graph(lambda: raw.DatasetFromGraph(graph_def=content))
    assert _refused(graph_def) == ["DatasetFromGraph"]
    assert _refused(_graph(lambda: tf.constant(content))) == []


# Once that has run, they are there; no file of a model holds them, and they are refused as unknown.
OPERATIONS_OF_ITS_TFLITE_CONVERTER = (
    *("TFLite_Detection_PostProcess", "UnidirectionalSequenceLstm", "UnidirectionalSequenceRnn"),
)
# Of the tests of TensorFlow itself, which its package carries along: of no use to a model.
OPERATIONS_OF_TENSORFLOW_TESTS = """
    A Attr AttrBool AttrBoolList AttrDefault AttrEmptyListDefault AttrEnum AttrEnumList AttrFloat
    AttrListDefault AttrListMin AttrListTypeDefault AttrMin AttrPartialShape AttrPartialShapeList
    AttrShape AttrShapeList AttrTypeDefault B Binary ComplexStruct ConstructionFails CopyOp
    DefaultAttrs DevicePlacementOp DtypeWithDefaultOp FiveFloatOutputs FloatInput FloatOutput
    FloatOutputStringOutput Foo1 Foo2 Foo3 FuncAttr FuncListAttr GetDeadline GraphDefVersion
    InPolymorphicTwice Int64Output IntAttr IntInput IntInputFloatInput IntInputIntOutput IntOutput
    IntOutputFloatOutput IsResourceHandleRefCounting KernelLabel KernelLabelRequired ListInput
    ListOutput MakeWeakResourceHandle MixedStruct Namespace>TestStringOutput NInPolymorphicTwice
    NIntsIn NIntsOut NIntsOutDefault NInTwice NInTwoTypeVariables None NPolymorphicIn
    NPolymorphicOut NPolymorphicOutDefault NPolymorphicRestrictIn NPolymorphicRestrictOut Old
    OpWithDefaultAttr OpWithFutureDefaultAttr OutT OutTypeList OutTypeListRestrict Polymorphic
    PolymorphicDefaultOut PolymorphicOut RefIn RefInputFloatInput RefInputFloatInputIntOutput
    RefInputIntInput RefOut RefOutput RefOutputFloatOutput RequiresOlderGraphVersion ReservedAttr
    ReservedInput ResourceCreateOp ResourceInitializedOp ResourceUsingOp Restrict Simple
    SimpleStruct SleepIdentityOp SleepOp StringListAttr StubResourceHandleOp TestAttr
    TestStringOutput TwoFloatInputs TwoFloatInputsFloatOutput TwoFloatInputsIntOutput
    TwoFloatOutputs TwoIntInputs TwoIntOutputs TwoRefsIn TypeList TypeListRestrict TypeListTwice
    Unary
"""


def _registered() -> dict[str, OpDef]:
    buffer = pywrap_tf_session.TF_GetAllOpList()
    op_list = OpList.FromString(bytes(pywrap_tf_session.TF_GetBuffer(buffer)))
    return {op.name: op for op in op_list.op}


def test_every_operation_that_a_file_can_hold_is_classified_once() -> None:
    """One that a release brings has to be looked at; one that it drops leaves the lists.

    What starts with `_` is made by TensorFlow as it runs; most of it is refused as unknown.
    """
    in_files = {name for name in _registered() if not name.startswith("_")}
    public = {name for name in dir(raw) if not name.startswith("_")}
    of_tests = {*OPERATIONS_OF_TENSORFLOW_TESTS.split(), *OPERATIONS_OF_ITS_TFLITE_CONVERTER}
    assert sorted(public - PURE - RISKS.keys()) == []
    assert sorted(in_files - PURE - RISKS.keys() - of_tests) == []
    assert sorted((PURE | RISKS.keys()) - _registered().keys()) == []
    counts = Counter(name for operations in OPERATIONS.values() for name in operations)
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() == PURE | RISKS.keys()


def test_what_prints_to_a_stream_by_default() -> None:
    (stream,) = [attr for attr in _registered()["PrintV2"].attr if attr.name == "output_stream"]
    assert stream.default_value.s == b"stderr"
    assert "PrintV2" in RISKS
    assert only_prints(NodeDef(op="PrintV2"))
    assert not only_prints(NodeDef(op="WriteFile"))


# What is said of a run without an end; the limit itself is tested on whole predictions.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 0), (0.0001, 1), (0.25, 250), (60.0, 60_000), (1e300, 0)],
)
def test_milliseconds(seconds: float, expected: int) -> None:
    assert TimeLimit(seconds).milliseconds == expected


def _calls(seconds: float) -> list[tuple[float, str]]:
    """What ends the process is told when something takes its time."""
    calls: list[tuple[float, str]] = []
    limit = TimeLimit(seconds, lambda after, line: calls.append((after, line)))
    with limit.over("the import"):
        calls.append((-1, "works"))
    return calls


def test_what_does_not_stop_in_time_ends_the_process() -> None:
    begun, work, stopped = _calls(2.5)
    assert (begun[0], work[0], stopped[0]) == (2.5 + GRACE_SECONDS, -1, 0)
    assert begun[1] == (
        "the import took longer than --time_limit=2.5 seconds, and does not end: give it more (0 "
        "is no limit)"
    )


def test_an_error_stops_the_clock() -> None:
    calls: list[float] = []
    limit = TimeLimit(1, lambda after, _: calls.append(after))
    with pytest.raises(ZeroDivisionError), limit.over("the import"):
        raise ZeroDivisionError
    assert calls[-1] == 0


@pytest.mark.parametrize("seconds", [0, 1e300])
def test_without_a_limit_nothing_is_ended(seconds: float) -> None:
    assert _calls(seconds) == [(-1, "works")]


def _reading() -> None:
    v1.WholeFileReader().read(v1.FIFOQueue(1, [tf.string], [[]]), name="read")


def _dequeuing() -> None:
    v1.FIFOQueue(1, [tf.int32, tf.int32], [[], []]).dequeue(name="q")


def _computing() -> None:
    tf.constant(1)


def _enqueuing() -> None:
    queue = v1.FIFOQueue(1, [tf.int32], [[]])
    for _ in range(9):
        queue.enqueue(1)


@pytest.mark.parametrize(
    ("build", "end"),
    [
        (_reading, "it waits for read (ReaderReadV2), which nobody fills; feed read:0, read:1"),
        (_dequeuing, "it waits for q (QueueDequeueV2), which nobody fills; feed q:0, q:1"),
        (_enqueuing, "and 6 more, which nobody fills; feed what comes after it"),
        (_computing, "give it more (0 is no limit)"),
    ],
)
def test_what_waits_is_named_with_what_to_feed(build: Callable[[], object], end: str) -> None:
    with tf.Graph().as_default() as graph:
        build()
    line = TimeLimit(1.5).overrun("one run", graph)
    assert line.startswith("one run took longer than --time_limit=1.5 seconds: ")
    assert line.removesuffix(" in its place").endswith(end)
