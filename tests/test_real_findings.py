"""One small graph for each of the 22 findings on real checkpoints: what predict makes of it.

The numbers are those of the list that the findings are on; each test says which it is about.
"""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError, PredictionError
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.metagraph.made import control_flow, refused, warnings_said
from tests.prediction import stock

v1 = tf.compat.v1

Array = npt.NDArray[Any]

X = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], np.float32)
W = np.array([[0.5, 1.5], [-1.0, 2.0], [3.0, 0.125]], np.float32)
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def _variable(name: str, value: Any, *, resource: bool = False) -> tf.Tensor:
    return v1.get_variable(name, initializer=value, use_resource=resource)


def _layer(x: tf.Tensor) -> tf.Tensor:
    """`y:0` = x W."""
    return tf.matmul(x, _variable("w", W), name="y")


def _model(path: Path, **saver_options: Any) -> Path:
    """The `.meta` file at the prefix `path` of y = x W, with x of unknown batch size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with stock.checkpoint(path, **saver_options):
        _layer(v1.placeholder(tf.float32, [None, 3], name="x"))
    return Path(f"{path}.meta")


def _predict(
    meta: Path,
    fetches: Sequence[str] = ("y:0",),
    feeds: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Array]:
    """What predict writes for the fetched tensors."""
    work = meta.parent / "predicted"
    work.mkdir(exist_ok=True)
    if feeds:
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in feeds.items()}
        np.savez(work / "feeds.npz", **arrays)
        options["feed"] = [*options.get("feed", ()), f"{work}/feeds.npz"]
    predict(PredictConfig(str(meta), fetch=list(fetches), output=f"{work}/out.npz", **options))
    with np.load(work / "out.npz") as found:
        return [found[name if ":" in name else f"{name}:0"] for name in fetches]


def _listing(meta: Path) -> str:
    return predict(PredictConfig(str(meta), list=True))


def _assert_y(meta: Path, **options: Any) -> None:
    """It computes X W, as NumPy does."""
    np.testing.assert_allclose(_predict(meta, feeds={"x:0": X}, **options)[0], X @ W, rtol=1e-6)


def _names_no_node(key: str) -> Callable[[MetaGraphDef], object]:
    return lambda proto: proto.collection_def[key].node_list.value.append("Adam")


def _version_that_is_none(proto: MetaGraphDef) -> None:
    proto.meta_info_def.tensorflow_version = "0.12.head"


def _shapes_only_beside(proto: MetaGraphDef) -> None:
    """As a producer before 24 wrote them: no `shape` that counts, but `_output_shapes`."""
    proto.graph_def.versions.producer = 22
    for node in proto.graph_def.node:
        node.attr.pop("shape" if node.op == "Placeholder" else "_none", None)


def _no_shapes(proto: MetaGraphDef) -> None:
    _shapes_only_beside(proto)
    proto.graph_def.versions.producer = 12
    for node in proto.graph_def.node:
        node.attr.pop("_output_shapes", None)


def _pinned_to(device: str) -> Callable[[MetaGraphDef], None]:
    def pin(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            node.device = device

    return pin


@pytest.mark.parametrize(
    ("edit", "stock_says", "listed"),
    [
        (_names_no_node("trainops"), "Adam", "trainops"),
        (_names_no_node("saveable_objects"), "Adam", "saveable_objects"),
        (_version_that_is_none, "Invalid version", ""),
        (_shapes_only_beside, "", "x:0  float32 [?, 3]"),
        (_no_shapes, "", ""),
        (_pinned_to("/job:ps/task:0"), "", ""),
        (_pinned_to("/job:worker/replica:0/task:3/cpu:0"), "", ""),
        (_pinned_to("/device:GPU:0"), "", ""),
    ],
    ids=["01", "01 too", "02", "03", "04", "05 ps", "05 worker", "05 GPU"],
)
def test_findings_01_to_05_what_an_old_or_foreign_file_says(
    tmp_path: Path, edit: Callable[[MetaGraphDef], object], stock_says: str, listed: str
) -> None:
    path = _model(tmp_path / "m")
    stock.edit_meta(path, edit)
    if stock_says:
        with pytest.raises((KeyError, ValueError), match=stock_says):
            stock.run(path, ["y:0"], {"x:0": X})
    _assert_y(path)
    assert listed in _listing(path)
    np.save(tmp_path / "x.npy", np.tile(X, (300, 1)))
    (rows,) = _predict(path, input=[str(tmp_path / "x.npy")])
    np.testing.assert_allclose(rows, np.tile(X @ W, (300, 1)), rtol=1e-6)


def test_finding_03_shapes_of_an_older_tensorflow_on_a_gradient(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [None, 2, 2, 3], name="x")
        y, *_ = v1.nn.fused_batch_norm(x, tf.ones([3]), tf.zeros([3]))
        tf.identity(y, name="y")
        _variable("v", np.float32(0))
        tf.identity(tf.gradients(tf.reduce_sum(y * y), x)[0], name="dx")

    def make_inconsistent(proto: MetaGraphDef) -> None:
        (gradient,) = (n for n in proto.graph_def.node if n.op.startswith("FusedBatchNormGrad"))
        del gradient.attr["_output_shapes"].list.shape[:]
        for _ in range(5):
            gradient.attr["_output_shapes"].list.shape.add().dim.add(size=77)

    images = np.random.default_rng(0).random((4, 2, 2, 3), np.float32)
    meta = tmp_path / "m.meta"
    y, dx = stock.run(meta, ["y:0", "dx:0"], {"x:0": images})
    stock.edit_meta(meta, make_inconsistent)
    with pytest.raises(ValueError, match="_output_shapes"):
        stock.run(meta, ["y:0"], {"x:0": images})
    ours = _predict(meta, ["y:0", "dx:0"], {"x:0": images})
    np.testing.assert_allclose(ours[0], y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours[1], dx, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("suffix", ["meta", "index", "data-00000-of-00001"])
def test_finding_06_a_git_lfs_pointer(tmp_path: Path, suffix: str) -> None:
    path = _model(tmp_path / "m")
    (tmp_path / f"m.{suffix}").write_bytes(LFS_POINTER)
    with refused(rf"m\.{suffix} .*(?i:git.lfs)", CheckpointError):
        _predict(path, feeds={"x:0": X})


def test_finding_07_a_graph_of_many_thousand_nodes(tmp_path: Path) -> None:
    """Most of them beside the path to the output; 3,000 in one chain on it."""
    path = _model(tmp_path / "m")

    def grow(proto: MetaGraphDef) -> None:
        before = "y"
        for i in range(12_000):
            node = proto.graph_def.node.add(name=f"n{i}", op="Neg", input=[before])
            node.attr["T"].type = tf.float32.as_datatype_enum
            before = node.name if i % 4 == 0 else before
        end = proto.graph_def.node.add(name="z", op="Identity", input=[before])
        end.attr["T"].type = tf.float32.as_datatype_enum

    stock.edit_meta(path, grow)
    np.testing.assert_allclose(_predict(path, ["z:0"], {"x:0": X})[0], X @ W, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["/home/someone/run/m-999", r"C:\\Users\\someone\\m-7", "not-there", "m-1"]
)
def test_finding_08_the_state_file_lies(tmp_path: Path, name: str) -> None:
    path = _model(tmp_path / "m-5")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    _assert_y(path)


@pytest.mark.parametrize(
    "name", ["model/", "a model/my ckpt", "v1.0/m.ckpt-4.5", "run--2/m--1", "checkpoint/model"]
)
def test_finding_09_odd_names(tmp_path: Path, name: str) -> None:
    path = _model(tmp_path / "m")
    prefix = f"{tmp_path}/there/{name}"
    Path(prefix + "x").parent.mkdir(parents=True)
    for suffix in (".meta", ".index", ".data-00000-of-00001"):
        path.with_suffix(suffix).rename(prefix + suffix)
    _assert_y(Path(prefix + ".meta"))


@pytest.mark.parametrize("sharded", [False, True])
def test_finding_10_the_old_format(tmp_path: Path, sharded: bool) -> None:
    path = _model(tmp_path / "export", write_version=v1.train.SaverDef.V1, sharded=sharded)
    assert (tmp_path / "export").exists() is not sharded
    assert (tmp_path / "export-00000-of-00001").exists() is sharded
    _assert_y(path)


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("whole", [True, False])
def test_finding_11_a_pickle_at_the_bare_prefix(tmp_path: Path, whole: bool) -> None:
    path = _model(tmp_path / "m")
    (tmp_path / "m").write_bytes(pickle.dumps(_Bomb(tmp_path / "victim")))
    if whole:
        _assert_y(path)
    else:
        (tmp_path / "m.index").unlink()
        with refused(r"m\b", CheckpointError):
            _predict(path, feeds={"x:0": X})
    assert not (tmp_path / "victim").exists()


def test_finding_12_the_data_file_is_missing(tmp_path: Path) -> None:
    path = _model(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").unlink()
    with refused(r"m\.data-00000-of-00001.* missing", CheckpointError):
        _predict(path, feeds={"x:0": X})


def test_finding_13_a_saver_that_saved_some_variables_only(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        y = _layer(v1.placeholder(tf.float32, [None, 3], name="x"))
        (w,) = v1.global_variables()
        tf.multiply(y, _variable("scale", np.float32(2)) + _variable("shift", 1.0), name="z")
        session.run(v1.global_variables_initializer())
        v1.train.Saver([w]).save(session, str(tmp_path / "m"))
    path = tmp_path / "m.meta"
    with refused(r"lacks 2 of the 3 variables.*: scale, shift", CheckpointError):
        _predict(path, ["z:0"], {"x:0": X})
    _assert_y(path)
    (z,) = _predict(path, ["z:0"], {"x:0": X, "scale:0": np.float32(2), "shift:0": np.float32(1)})
    np.testing.assert_allclose(z, 3 * (X @ W), rtol=1e-6)


def _pipeline(folder: Path, source: Callable[[], tf.Tensor]) -> Path:
    """y = source W, where the graph has no placeholder."""
    with stock.checkpoint(folder / "m"):
        _layer(source())
    return folder / "m.meta"


def _queue() -> tf.Tensor:
    queue = v1.FIFOQueue(10, [tf.float32], shapes=[[3]], name="fifo_queue")
    return queue.dequeue_many(2)


def _iterator() -> tf.Tensor:
    data = tf.data.Dataset.from_tensors(np.zeros((2, 3), np.float32))
    return v1.data.make_initializable_iterator(data).get_next()


def _examples() -> tf.Tensor:
    serialized = v1.placeholder(tf.string, [None], name="tf_example")
    features = {"x": tf.io.FixedLenFeature([3], tf.float32)}
    return v1.io.parse_example(serialized, features)["x"]


@pytest.mark.parametrize(
    ("source", "tensor", "unfed"),
    [
        (_queue, "fifo_queue_DequeueMany:0", "fifo_queue_DequeueMany"),
        (_iterator, "IteratorGetNext:0", "IteratorGetNext"),
        (_examples, "ParseExample/ParseExampleV2:0", "tf_example:0 string"),
    ],
    ids=["queue", "iterator", "examples"],
)
def test_finding_14_any_tensor_of_a_pipeline_is_fed(
    tmp_path: Path, source: Callable[[], tf.Tensor], tensor: str, unfed: str
) -> None:
    path = _pipeline(tmp_path, source)
    np.testing.assert_allclose(_predict(path, feeds={tensor: X})[0], X @ W, rtol=1e-6)
    assert tensor in _listing(path)
    with refused(unfed):
        _predict(path, time_limit=1.0)


def test_finding_14_training_data_are_never_served_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_shot() -> tf.Tensor:
        data = tf.data.Dataset.from_tensors(np.ones((2, 3), np.float32))
        return v1.data.make_one_shot_iterator(data).get_next()

    path = _pipeline(tmp_path, one_shot)
    said = warnings_said(monkeypatch)
    _predict(path)
    assert any("OneShotIterator" in line or "IteratorGetNext" in line for line in said)
    np.testing.assert_allclose(_predict(path, feeds={"IteratorGetNext:0": X})[0], X @ W, rtol=1e-6)


def _table(folder: Path, initial: Callable[[], Any]) -> Path:
    with stock.checkpoint(folder / "m"):
        words = v1.placeholder(tf.string, [None], name="words")
        table = tf.lookup.StaticHashTable(initial(), -1)
        tf.multiply(table.lookup(words), _variable("v", np.int64(10)), name="y")
    return folder / "m.meta"


def test_finding_15_a_table_is_filled(tmp_path: Path) -> None:
    def initial() -> Any:
        keys, values = tf.constant(["a", "b"]), tf.constant([3, 4], tf.int64)
        return tf.lookup.KeyValueTensorInitializer(keys, values)

    (y,) = _predict(_table(tmp_path, initial), feed=['words=["b", "a", "c"]'])
    assert y.tolist() == [40, 30, -10]


def test_finding_15_a_vocabulary_at_another_machines_path(tmp_path: Path) -> None:
    gone, here = tmp_path / "gone" / "vocab.txt", tmp_path / "vocab.txt"
    gone.parent.mkdir()
    gone.write_text("a\nb\n")
    index = tf.lookup.TextFileIndex
    kinds = tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    path = _table(tmp_path, lambda: tf.lookup.TextFileInitializer(str(gone), *kinds))
    gone.rename(here)
    with refused(r"vocab\.txt.*--asset"):
        _predict(path, feed=['words=["b"]'])
    (y,) = _predict(path, feed=['words=["b", "a", "c"]'], asset=[f"vocab.txt={here}"])
    assert y.tolist() == [10, 0, -10]


@pytest.mark.parametrize("resource", [False, True])
def test_finding_16_a_switch_that_is_a_variable(tmp_path: Path, resource: bool) -> None:
    with stock.checkpoint(tmp_path / "m"):
        is_training = _variable("is_training", True, resource=resource)
        y = _layer(v1.placeholder(tf.float32, [None, 3], name="x"))
        tf.cond(is_training, lambda: y * 0.0, lambda: y)
        tf.where(tf.identity(is_training), y * 0.0, y, name="z")
    path = tmp_path / "m.meta"
    np.testing.assert_array_equal(_predict(path, ["z:0"], {"x:0": X})[0], X @ W * 0)
    (z,) = _predict(path, ["z:0"], {"x:0": X}, feed=["is_training=false"])
    np.testing.assert_allclose(z, X @ W, rtol=1e-6)


def test_finding_17_dropout_that_cannot_be_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        y = _layer(v1.placeholder(tf.float32, [None, 3], name="x"))
        tf.nn.dropout(tf.tile(y, [1, 50]), rate=0.5, name="dropped")
        tf.identity(v1.get_default_graph().get_tensor_by_name("dropped/SelectV2:0"), name="z")
    said = warnings_said(monkeypatch)
    _assert_y(tmp_path / "m.meta")
    assert said == []
    _predict(tmp_path / "m.meta", ["z:0"], {"x:0": X})
    assert any("dropped" in line for line in said)


def test_finding_18_an_operation_without_a_kernel_here(tmp_path: Path) -> None:
    """A session with such an operation can run nothing at all: it is added to the file."""
    path = _model(tmp_path / "m")

    def add(proto: MetaGraphDef) -> None:
        with tf.Graph().as_default() as graph:
            (y,) = tf.import_graph_def(proto.graph_def, return_elements=["y:0"], name="")
            given = {"input": y[tf.newaxis], "params": tf.zeros([100])}
            state = tf.zeros([1, 2, 2])
            output, *_ = tf.raw_ops.CudnnRNN(input_h=state, input_c=state, **given)
            tf.identity(output, name="z")
        proto.graph_def.CopyFrom(graph.as_graph_def())

    stock.edit_meta(path, add)
    with pytest.raises(tf.errors.InvalidArgumentError, match="No OpKernel"):
        stock.run(path, ["y:0"], {"x:0": X})
    _assert_y(path)
    with refused("CudnnRNN", CheckpointError):
        _predict(path, ["z:0"], {"x:0": X})


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_finding_19_a_fixed_batch_size(tmp_path: Path, rows: int) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _layer(v1.placeholder(tf.float32, [4, 3], name="x"))
    x = np.random.default_rng(0).random((rows, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    (y,) = _predict(tmp_path / "m.meta", input=[str(tmp_path / "x.npy")])
    np.testing.assert_allclose(y, x @ W, rtol=1e-6)


@pytest.mark.parametrize("rows", [2, 700])
def test_finding_19_a_column_major_input(tmp_path: Path, rows: int) -> None:
    """X of [features, batch], as in the courses; its rows are given as rows."""
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(tf.float32, [3, None], name="x")
        tf.matmul(_variable("w", W), x, transpose_a=True, name="y")
    x = np.random.default_rng(0).random((rows, 3), np.float32)
    (y,) = _predict(tmp_path / "m.meta", feeds={"x:0": x.T})
    np.testing.assert_allclose(y, W.T @ x.T, rtol=1e-5)
    np.save(tmp_path / "x.npy", x)
    (y,) = _predict(tmp_path / "m.meta", input=[str(tmp_path / "x.npy")])
    np.testing.assert_allclose(y if y.shape[0] == rows else y.T, x @ W, rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.5, -2.0], np.float16),
        np.array([0.5, 1e-300], np.float64),
        np.array([2**53 + 1, -7], np.int64),
        np.array([True, False]),
        np.array([3, 255], np.uint8),
    ],
    ids=lambda values: str(values.dtype),
)
def test_finding_19_inputs_of_any_dtype(tmp_path: Path, values: Array) -> None:
    with stock.checkpoint(tmp_path / "m"):
        x = v1.placeholder(values.dtype, [None], name="x")
        tf.reverse(x, [_variable("axis", 0)], name="y")
    (y,) = _predict(tmp_path / "m.meta", feeds={"x:0": values})
    assert y.dtype == values.dtype
    assert y.tolist() == values[::-1].tolist()
    np.save(tmp_path / "x.npy", values)
    (y,) = _predict(tmp_path / "m.meta", input=[str(tmp_path / "x.npy")], batch_size=1)
    assert y.tolist() == values.tolist()


def test_finding_19_serialized_examples(tmp_path: Path) -> None:
    path = _pipeline(tmp_path, _examples)
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        for row in X:
            example = tf.train.Example()
            example.features.feature["x"].float_list.value.extend(row)
            writer.write(example.SerializeToString())
    (y,) = _predict(path, input=[str(tmp_path / "x.tfrecord")])
    np.testing.assert_allclose(y, X @ W, rtol=1e-6)


def test_finding_19_unknown_rank_and_many_placeholders(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        parts = [v1.placeholder(tf.float32, None, name=f"in{i}") for i in range(35)]
        tf.multiply(tf.add_n(parts), _variable("v", np.float32(2)), name="y")
    feeds = {f"in{i}:0": np.full([2, 1], i, np.float32) for i in range(35)}
    (y,) = _predict(tmp_path / "m.meta", feeds=feeds)
    assert y.tolist() == [[2.0 * sum(range(35))]] * 2
    del feeds["in34:0"]
    with refused(r"y:0 needs in34:0 float32 of any shape", PredictionError):
        _predict(tmp_path / "m.meta", feeds=feeds)


def test_finding_20_plumbing_is_no_input(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _layer(v1.placeholder(tf.float32, [None, 3], name="x"))
        with tf.name_scope("enqueue_input"):
            queue = v1.FIFOQueue(10, [tf.int64], name="queue")
            queue.enqueue(v1.placeholder(tf.int64, [], name="Placeholder"))
    path = tmp_path / "m.meta"
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(str(path))
    plumbing = {"save/filename", "save/Const", "enqueue_input/Placeholder"}
    assert plumbing < {operation.name for operation in graph.get_operations()}
    document = json.loads(predict(PredictConfig(str(path), list=True, format="json")))
    listed = json.dumps(document["inputs"])
    assert "x:0" in listed
    assert not [name for name in plumbing if name in listed]


def test_finding_21_an_operation_is_its_first_output(tmp_path: Path) -> None:
    path = _model(tmp_path / "m")
    assert stock.run(path, ["y:0"], {"x:0": X})[0] is not None
    (y,) = _predict(path, ["y"], {"x": X})
    np.testing.assert_allclose(y, X @ W, rtol=1e-6)


def _partitioned(x: tf.Tensor) -> tf.Tensor:
    partitioner = v1.fixed_size_partitioner(3)

    def rows(shape: Any, dtype: Any, partition_info: Any) -> tf.Tensor:  # noqa: ARG001
        start = partition_info.var_offset[0]
        return tf.constant(W)[start : start + shape[0]]

    w = v1.get_variable("w", W.shape, None, rows, partitioner=partitioner, use_resource=False)
    return tf.matmul(x, tf.convert_to_tensor(w))


def _resource(x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, _variable("w", W, resource=True))


def _with_averages_and_slots(x: tf.Tensor) -> tf.Tensor:
    w = _variable("w", W, resource=True)
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w)))
    train = v1.train.AdamOptimizer(0.1).minimize(loss)
    with tf.control_dependencies([train]):
        tf.train.ExponentialMovingAverage(0.9).apply([w])
    return tf.matmul(x, w)


def _loop(x: tf.Tensor) -> tf.Tensor:
    w = _variable("w", W)
    y = tf.matmul(x, w)
    _, doubled = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2.0), (0, y))
    return tf.identity(doubled / 8.0)


def _condition(x: tf.Tensor) -> tf.Tensor:
    w = _variable("w", W)
    return tf.cond(x[0, 0] > 0, lambda: tf.matmul(x, w), lambda: tf.zeros([1, 2]))


def _function(x: tf.Tensor) -> tf.Tensor:
    inner = tf.function(tf.matmul)
    return tf.function(lambda a, b: inner(a, b) + 0.0)(x, _variable("w", W).read_value())


@pytest.mark.parametrize("new_control_flow", [False, True])
@pytest.mark.parametrize(
    "build",
    [_partitioned, _resource, _with_averages_and_slots, _loop, _condition, _function],
    ids=["partitioned", "resource", "averages", "while", "cond", "function"],
)
def test_finding_22_kinds_of_variables_and_control_flow(
    tmp_path: Path, build: Callable[[tf.Tensor], tf.Tensor], new_control_flow: bool
) -> None:
    with control_flow(new_control_flow), stock.checkpoint(tmp_path / "m"):
        tf.identity(build(v1.placeholder(tf.float32, [None, 3], name="x")), name="y")
    _assert_y(tmp_path / "m.meta")


def test_finding_22_variables_saved_under_other_names(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = _variable("w", W, resource=True)
        tf.matmul(x, w, name="z")
        average = tf.train.ExponentialMovingAverage(0.5)
        average.apply([w])
        session.run(v1.global_variables_initializer())
        session.run(w.assign(W * 7))
        saver = v1.train.Saver({average.average_name(w): w, "other": average.average(w)})
        saver.save(session, str(tmp_path / "m"))
    ours = _predict(tmp_path / "m.meta", ["z:0", "w:0"], {"x:0": X})
    np.testing.assert_allclose(ours[0], X @ (W * 7), rtol=1e-6)
    np.testing.assert_array_equal(ours[1], W * 7)


def test_finding_22_two_data_shards(tmp_path: Path) -> None:
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        with tf.device("/cpu:0"):
            hidden = tf.matmul(x, _variable("w", W))
        with tf.device("/cpu:1"):
            tf.add(hidden, _variable("b", np.array([1, 2], np.float32)), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver(sharded=True).save(session, str(tmp_path / "m"))
    assert (tmp_path / "m.data-00001-of-00002").exists()
    (y,) = _predict(tmp_path / "m.meta", feeds={"x:0": X})
    np.testing.assert_allclose(y, X @ W + [1, 2], rtol=1e-6)
