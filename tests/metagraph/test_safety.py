"""What may do more than compute is refused before it is imported, and left alone off the path."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.safety import RISKS, check_operations, offenders
from metagraph.session import describe_tensors, load_inference_graph
from tests.metagraph.made import refused, saved
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
    with load_inference_graph(meta, [fetch], ["x:0"], trust_graph=trust_graph) as graph:
        return graph.run(np.asarray(2, np.float32))[0]


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
        _run(tmp_path / "m.meta", "bad:0")
    with load_inference_graph(meta, ["bad:0"], ["waits:0"]) as graph:
        assert graph.run(np.asarray(5, np.float32))[0] == 6


def _write_two_functions_deep(path: str) -> None:
    def write(text: tf.Tensor) -> tf.Tensor:
        raw.WriteFile(filename=path, contents=text, name=NODE)
        return tf.identity(text)

    inner = tf.function(write)
    tf.function(lambda text: tf.strings.lower(inner(text)))(tf.constant("owned"))


def _write_in_a_branch(path: str) -> None:
    def branch() -> tf.Tensor:
        raw.WriteFile(filename=path, contents="owned", name=NODE)
        return tf.constant(1)

    tf.cond(v1.placeholder_with_default(False, []), branch, lambda: tf.constant(2))


def _write_in_a_dataset(path: str) -> None:
    def write(value: tf.Tensor) -> tf.Tensor:
        raw.WriteFile(filename=path, contents="owned", name=NODE)
        return value

    data = tf.data.Dataset.range(3).map(write)
    v1.data.make_one_shot_iterator(data).get_next()


@pytest.mark.parametrize(
    "build", [_write_two_functions_deep, _write_in_a_branch, _write_in_a_dataset]
)
def test_an_operation_deep_in_functions_is_found(
    build: Build, tmp_path: Path, imported: set[str]
) -> None:
    path = _checkpoint(tmp_path, build)
    message = rf"node {NODE} of function \S+ runs the operation WriteFile"
    with refused(message):
        _run(path, "bad:0")
    assert _run(path, "y:0") == 6
    assert "WriteFile" not in imported
    assert not (tmp_path / "victim").exists()


def _poison_restore(proto: MetaGraphDef, path: Path) -> None:
    """Makes the file's own restore operation write a file, and `bad` wait for it."""
    poison = _graph(lambda: raw.WriteFile(filename=str(path), contents="owned", name=NODE))
    for node in poison.node:
        node.name, inputs = f"poison/{node.name}", [f"poison/{name}" for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    proto.graph_def.node.extend(poison.node)
    for node in proto.graph_def.node:
        if node.name == "save/restore_all":
            node.input.append(f"^poison/{NODE}")
        if node.name == "bad":
            node.input.append("^save/restore_all")


def test_a_poisoned_restore_is_never_run(tmp_path: Path, imported: set[str]) -> None:
    path = _checkpoint(tmp_path, lambda _: tf.no_op())
    victim = tmp_path / "victim"
    stock.edit_meta(path, lambda proto: _poison_restore(proto, victim))
    assert _run(path, "y:0") == 6
    with pytest.raises(CheckpointError, match="runs the operation WriteFile") as caught:
        _run(path, "bad:0")
    assert f"node poison/{NODE} runs" in str(caught.value)
    assert "node save/RestoreV2 runs the operation RestoreV2" in str(caught.value)
    assert not {"WriteFile", "RestoreV2"} & imported
    assert not victim.exists()
    stock.run(path, ["y:0"], {"x:0": np.float32(2)})
    assert victim.exists()  # The poison is real: it harms a stock client.


def test_a_trusted_graph_runs_and_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _checkpoint(
        tmp_path, lambda path: raw.WriteFile(filename=path, contents="owned", name=NODE)
    )
    warnings: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    assert _run(path, "bad:0", trust_graph=True) == 6
    assert (tmp_path / "victim").read_text() == "owned"
    assert len(warnings) == 1
    assert f"node {NODE} runs the operation WriteFile, which {RISKS['WriteFile']}" in warnings[0]


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
