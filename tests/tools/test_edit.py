"""Edited checkpoints, read by stock clients: what they hold, restore and predict."""

import errno
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.finetuning.bases import values_of
from tests.prediction import stock
from tests.prediction.conftest import document as predicted
from tests.runs import meta_graph
from tests.test_thirdparty import _feeds as feeds_of
from tests.test_thirdparty import _predicted, every_entry
from tests.tools.conftest import Tool, document, refused
from tools import edit_graph, editing

v1 = tf.compat.v1
V1 = v1.train.SaverDef.V1
Array = npt.NDArray[Any]
SUFFIXES = (".data-00000-of-00001", ".index", ".meta")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.


@pytest.fixture
def edit(tool: Tool) -> Callable[..., dict[str, Any]]:
    """Calls the tool, which has to succeed, and returns its JSON."""

    return functools.partial(document, tool, "edit")


Edit = Callable[..., dict[str, Any]]


def _assert_same(one: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (value.dtype, value.shape) == (other[key].dtype, other[key].shape)
        assert value.tobytes() == other[key].tobytes()


def _saved_again(prefix: Path) -> dict[str, Array]:
    """What a stock client saves that has restored it."""
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        saver.restore(session, str(prefix))
        return values_of(saver.save(session, f"{prefix}-again"))


def _rows(shape: tuple[int, ...] = (3, 32, 32, 3)) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def test_a_subset_under_other_names_restores_into_a_graph_of_those_names(
    cnn_run: Path, edit: Edit, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in cnn_run.glob("my-model-*")}
    rules = ["--only=^conv1/[wb]$", "--rename=conv1/b=offset", "--rename=conv1/=filters/"]
    record = edit(cnn_run, f"--output={tmp_path}/new", *rules)
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("filters/w", [3, 3, 3, 32])
        b = v1.get_variable("offset", [32])
        v1.train.Saver().restore(session, f"{tmp_path}/new")
        found = dict(zip(["conv1/w", "conv1/b"], session.run([w, b]), strict=True))
    old = values_of(cnn_run / "my-model-200")
    _assert_same(found, {key: old[key] for key in found})
    assert values_of(f"{tmp_path}/new").keys() == {"filters/w", "offset"}
    names = {variable["was"]: variable["name"] for variable in record["variables"]}
    assert names == {"conv1/w": "filters/w", "conv1/b": "offset"}
    assert len(record["dropped"]) == 25
    assert record["graph"] is None
    assert {*os.listdir(tmp_path)} == {"checkpoint", "new.index", "new.data-00000-of-00001"}
    assert before == {path.name: path.read_bytes() for path in cnn_run.glob("my-model-*")}


def test_the_graph_goes_along_and_restores_the_new_names(
    cnn_run: Path, edit: Edit, tmp_path: Path
) -> None:
    rules = ["--without_slots", "--rename=fc2/=head/", "--rename=conv1/w=f"]
    record = edit(f"--meta={cnn_run}", f"--output={tmp_path}/new", *rules)
    old, new = cnn_run / "my-model-200", tmp_path / "new"
    layers = {f"{layer}/{v}" for layer in ("conv1", "conv2", "fc1", "head") for v in "wb"}
    assert values_of(new).keys() == layers - {"conv1/w"} | {"f", "global_step"}
    tensors, feeds = ["fc2/add:0", "conv1/w/read:0"], {"x:0": _rows()}
    expected = stock.run(f"{old}.meta", tensors, feeds)
    for one, other in zip(expected, stock.run(f"{new}.meta", tensors, feeds), strict=True):
        assert one.tobytes() == other.tobytes()
    proto = meta_graph(new)
    assert list(proto.collection_def["predict"].node_list.value) == ["fc2/add:0"]
    assert proto.signature_def["serving_default"].inputs["x"].name == "x:0"
    assert {"input_scale", "trained_on", "variables"} <= {*proto.collection_def}
    assert "train_op" not in proto.collection_def
    names = {node.name for node in proto.graph_def.node}
    assert not {name for name in names if "Adam" in name or "gradient" in name}
    assert record["graph"]["nodes"] == len(names) < record["graph"]["nodes_before"]
    assert record["graph"]["outputs"][0] == "fc2/add:0"
    assert record["graph"]["restored"] == 9


def _copy(prefix: str | Path, folder: Path) -> Path:
    """The same checkpoint elsewhere, without a manifest, so that a test may change it."""
    folder.mkdir()
    for suffix in SUFFIXES:
        (folder / f"model{suffix}").write_bytes(Path(f"{prefix}{suffix}").read_bytes())
    return folder / "model"


def _predictions(meta: Path, rows: Path) -> tuple[list[Any], list[Any]]:
    """What predict.py says of rows: the values of the outputs, and the classes."""
    found = predicted(str(meta), input=[str(rows)])
    return [*found["outputs"].values()], found.get("predictions", [])


def test_predict_says_of_it_what_it_says_of_the_original(
    cnn_run: Path, edit: Edit, tmp_path: Path
) -> None:
    """Of a model, two of whose classes are called as nodes are."""
    old = _copy(cnn_run / "my-model-200", tmp_path / "copy")
    names = [b"red", b"x", b"conv1/w/Adam", b"blue"]
    stock.edit_meta(
        Path(f"{old}.meta"),
        lambda proto: proto.collection_def["class_names"].bytes_list.value.extend(names),
    )
    edit(f"--meta={old}", f"--output={tmp_path}/new", "--without_slots", "--rename==a/")
    np.save(tmp_path / "rows.npy", _rows((9, 32, 32, 3)))
    expected = _predictions(Path(f"{old}.meta"), tmp_path / "rows.npy")
    assert {row["class"] for row in expected[1]} <= {name.decode() for name in names}
    assert _predictions(tmp_path / "new.meta", tmp_path / "rows.npy") == expected


def test_there_and_back_gives_the_same_files(cnn_run: Path, edit: Edit, tmp_path: Path) -> None:
    """Whether the graph goes along or not; it trains as before."""
    there = ["--rename=conv1/w=z", "--rename=fc1/=a/"]
    there += [f"--rename=conv{n}/=net/conv{n}/" for n in (1, 2)]
    back = ["--rename=z=conv1/w", "--rename=a/=fc1/", "--rename=net/="]
    for flag in ("ckpt", "meta"):
        edit(f"--{flag}={cnn_run}", f"--output={tmp_path}/{flag}/there", *there)
        edit(f"--{flag}={tmp_path}/{flag}/there", f"--output={tmp_path}/{flag}/back", *back)
        for suffix in SUFFIXES[:2]:
            old = (cnn_run / f"my-model-200{suffix}").read_bytes()
            assert (tmp_path / flag / f"back{suffix}").read_bytes() == old
    nodes, kept = (
        {n.name: n.op for n in meta_graph(prefix).graph_def.node if not n.name.startswith("save")}
        for prefix in (cnn_run / "my-model-200", tmp_path / "meta/back")
    )
    assert kept == nodes


@pytest.mark.parametrize("cast", ["float16", "bfloat16", "float64"])
def test_cast_values_are_restored_in_the_graphs_own_dtype(
    cnn_run: Path, edit: Edit, tmp_path: Path, cast: str
) -> None:
    edit(f"--meta={cnn_run}", f"--output={tmp_path}/new", f"--cast={cast}", "--rename=fc1/w=w")
    old, new = values_of(cnn_run / "my-model-200"), values_of(tmp_path / "new")
    dtype = tf.as_dtype(cast).as_numpy_dtype
    rounded = old["fc1/w"].astype(dtype)
    assert new["w"].tobytes() == rounded.tobytes()
    assert new["global_step"].dtype == np.int64
    fetches = ["fc1/w:0", "fc2/add:0"]
    found, logits = stock.run(tmp_path / "new.meta", fetches, {"x:0": _rows()})
    assert found.dtype == np.float32
    assert found.tobytes() == rounded.astype(np.float32).tobytes()
    (expected,) = stock.run(f"{cnn_run}/my-model-200.meta", ["fc2/add:0"], {"x:0": _rows()})
    largest = np.abs(expected - logits).max() / np.abs(expected).max()
    assert largest <= 0.02
    assert (largest == 0) == (cast == "float64")
    np.save(tmp_path / "rows.npy", _rows())
    (values, *_), _ = _predictions(tmp_path / "new.meta", tmp_path / "rows.npy")
    np.testing.assert_allclose(values, logits, rtol=1e-5)


def test_a_cast_is_saved_as_it_was_and_can_be_taken_back(
    linear_run: Path, edit: Edit, tmp_path: Path
) -> None:
    edit(f"--meta={linear_run}", f"--output={tmp_path}/half", "--cast=float16", "--rename=w=v")
    _assert_same(values_of(tmp_path / "half"), _saved_again(tmp_path / "half"))
    edit(f"--meta={tmp_path}/half", f"--output={tmp_path}/back", "--cast=float32")
    w = values_of(linear_run / "my-model-300")["w"].astype(np.float16).astype(np.float32)
    assert values_of(tmp_path / "back")["v"].tobytes() == w.tobytes()
    (found,) = stock.run(tmp_path / "back.meta", ["w:0"])
    assert found.tobytes() == w.tobytes()


RAMP = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)


def _ramp(shape: list[int], dtype: tf.DType, partition_info: Any) -> tf.Tensor:
    """The rows of RAMP that a part of it has."""
    start = partition_info.var_offset[0]
    return tf.constant(RAMP[start : start + shape[0]], dtype)


@pytest.fixture(params=["ref", "resource"])
def sliced(request: pytest.FixtureRequest) -> Callable[[], None]:
    """A model of a variable in two parts and one saved under another name, with a training step."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 6], "x")
        with v1.variable_scope("", use_resource=request.param == "resource"):
            halves = v1.fixed_size_partitioner(2)
            w = v1.get_variable("w", [6, 4], initializer=_ramp, partitioner=halves)
            b = v1.get_variable("b", initializer=[1.0, 2, 3, 4])
            y = tf.add(x @ tf.convert_to_tensor(w), b, name="y")
            v1.train.AdamOptimizer().minimize(tf.reduce_sum(y**2))
        v1.add_to_collection("predict", y)

    return build


@pytest.mark.parametrize("version", [V1, v1.train.SaverDef.V2], ids=["V1", "V2"])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("slots", ["", "--without_slots"])
def test_any_format_a_saver_has_written_becomes_the_present_one(
    sliced: Callable[[], None],
    edit: Edit,
    tmp_path: Path,
    version: int,
    sharded: bool,
    slots: str,
) -> None:
    with stock.checkpoint(tmp_path / "old", write_version=version, sharded=sharded):
        sliced()
    given = ["--rename=b=c", "--rename=w=u", slots or "--rename=w/=u/"]
    edit(f"--meta={tmp_path}/old.meta", f"--output={tmp_path}/new", *given)
    assert {path.name for path in tmp_path.glob("new.*")} == {f"new{s}" for s in SUFFIXES}
    feeds = {"x:0": _rows((5, 6))}
    suffix = "-?????-of-00001" if sharded and version == V1 else ""
    (one,) = stock.run(tmp_path / "old.meta", ["y:0"], feeds, f"{tmp_path}/old{suffix}")
    (other,) = stock.run(tmp_path / "new.meta", ["y:0"], feeds)
    assert one.tobytes() == other.tobytes()
    values = values_of(tmp_path / "new")
    np.testing.assert_array_equal(values["u"], RAMP)
    np.testing.assert_array_equal(values["c"], [1, 2, 3, 4])
    assert (values.keys() == {"u", "c"}) == bool(slots)
    _assert_same(_saved_again(tmp_path / "new"), values)


def test_a_saver_that_stores_under_names_of_its_own_is_followed(edit: Edit, tmp_path: Path) -> None:
    """`value` of the checkpoint is `w` of the graph."""
    names = dict[str, tf.Variable]()
    with stock.checkpoint(tmp_path / "old", var_list=names):
        names["value"] = v1.get_variable("w", initializer=[2.0, 3])
        v1.add_to_collection("predict", tf.identity(names["value"] * 2, "y"))
    edit(f"--meta={tmp_path}/old", f"--output={tmp_path}/new", "--rename=value=v")
    assert values_of(f"{tmp_path}/new").keys() == {"v"}
    np.testing.assert_array_equal(stock.run(f"{tmp_path}/new.meta", ["y:0"]), [[4, 6]])


def test_averages_in_place_of_the_weights_by_edit_and_ckpt(edit: Edit, tmp_path: Path) -> None:
    """The graph is that of the first step alone, the slots are BERT's, the name has points."""
    for step, value in ((1, 5.0), (200, 7.0)):
        with stock.checkpoint(tmp_path / f"cnn.v1.0-acc0.92-{step}", write_meta_graph=step == 1):
            w = v1.get_variable("w", initializer=[1.0])
            for name in ("w/ExponentialMovingAverage", "w/adam_m", "w/adam_v"):
                v1.get_variable(name, initializer=[value])
            v1.add_to_collection("predict", tf.identity(w * 2, "y"))
    old, new = tmp_path / "cnn.v1.0-acc0.92-200", tmp_path / "ema"
    found = edit(old, "--without_slots", f"--output={tmp_path}/slotless")
    assert found["dropped"] == ["w/adam_m", "w/adam_v"]
    average = "w/ExponentialMovingAverage"
    edit(old, f"--only={average}", f"--rename={average}=w", f"--output={new}")
    meta = f"{tmp_path}/cnn.v1.0-acc0.92-1.meta"
    assert predicted(meta, checkpoint=[str(new)])["outputs"] == {"y:0": [14]}
    assert predicted(meta, checkpoint=[str(old)], weights="ema")["outputs"] == {"y:0": [14]}
    assert predicted(str(tmp_path))["outputs"] == {"y:0": [2]}


def test_a_checkpoint_of_objects_becomes_one_of_names(edit: Edit, tmp_path: Path) -> None:
    """With its graph, whose saver has the variables' names, and without."""
    net, optimizer = tf.Module(), tf.keras.optimizers.SGD(0.1, momentum=0.9)
    net.w, net.b = tf.Variable([2.0, 3.0], name="fc/w"), tf.Variable(1.0, name="fc/b")
    optimizer.apply_gradients([(tf.zeros([2]), net.w)])
    objects = tf.train.Checkpoint(net=net, optimizer=optimizer).write(f"{tmp_path}/objects")
    edit(f"--ckpt={objects}", f"--output={tmp_path}/all")
    held = values_of(tmp_path / "all")
    assert {"fc/w", "fc/b"} < held.keys()
    assert not [key for key in held if "ATTRIBUTES" in key or "OBJECT_GRAPH" in key]
    with stock.checkpoint(tmp_path / "graph"):
        with v1.variable_scope("fc"):
            w, b = (
                v1.get_variable(n, initializer=x) for n, x in {"w": [0.0, 0.0], "b": 0.0}.items()
            )
        v1.add_to_collection("predict", tf.add(w * 2, b, "y"))
    asked = [f"--meta={tmp_path}/graph.meta", f"--ckpt={objects}", "--without_slots"]
    edit(*asked, "--only=^fc/", "--rename=fc/b=bias", f"--output={tmp_path}/new")
    assert values_of(tmp_path / "new").keys() == {"fc/w", "bias"}
    np.testing.assert_array_equal(stock.run(f"{tmp_path}/new.meta", ["y:0"])[0], [5, 7])


def test_variables_of_one_key_are_all_restored_and_one_is_saved(edit: Edit, tmp_path: Path) -> None:
    """All are restored: the second, which is in no saver, by its shared name."""
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=[2.0, 3])
        other = tf.raw_ops.VariableV2(shape=[2], dtype=tf.float32, shared_name="w", name="other")
        v1.add_to_collection("predict", tf.add(w, other, "y"))
        session.run(w.initializer)
        v1.train.Saver([w]).save(session, f"{tmp_path}/old")
    edit(f"--meta={tmp_path}/old", f"--output={tmp_path}/new", "--rename=w=v")
    np.testing.assert_array_equal(stock.run(f"{tmp_path}/new.meta", ["y:0"]), [[4, 6]])
    assert _saved_again(tmp_path / "new").keys() == {"v"}


def test_a_graph_whose_table_is_in_the_checkpoint_is_refused(tool: Tool, tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "old"):
        x, n = v1.placeholder(tf.int64, [None], "x"), v1.get_variable("n", initializer=1.0)
        saved = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0, name="saved")
        v1.add_to_collection("predict", tf.add(saved.lookup(x), n, name="y"))
    line = refused(tool, "edit", f"--meta={tmp_path}/old", f"--output={tmp_path}/new")
    assert "fills a lookup table from the checkpoint" in line
    assert line.endswith("leave out --meta")
    assert tool("edit", f"{tmp_path}/old", f"--output={tmp_path}/new").code == 0


def test_outputs_that_cannot_be_imported_are_said_before_anything_is_written(
    tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    old = _copy(linear_run / "my-model-300", tmp_path / "copy")

    def change(proto: Any) -> None:
        next(node for node in proto.graph_def.node if node.name == "y").op = "NoSuchOp"

    stock.edit_meta(Path(f"{old}.meta"), change)
    line = refused(tool, "edit", f"--meta={old}", f"--output={tmp_path}/new")
    assert line.startswith(f"{old}.meta cannot be imported")
    assert "NoSuchOp" in line
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_vocabulary_stays_where_it_was(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    with stock.checkpoint(tmp_path / "old"):
        x = v1.placeholder(tf.string, [None], "x")
        v1.get_variable("unused", initializer=1.0)
        w = v1.get_variable("w", initializer=[5, 6])
        index = tf.lookup.TextFileIndex
        kinds = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        words = tf.lookup.TextFileInitializer(f"{tmp_path}/words.txt", *kinds)
        y = tf.cast(tf.lookup.StaticHashTable(words, -1).lookup(x), tf.int32) + tf.reduce_sum(w)
        v1.add_to_collection("predict", tf.identity(y, "y"))
    arguments = [f"--meta={tmp_path}/old", f"--output={tmp_path}/new", "--drop=unused"]
    edit(*arguments, "--rename==net/")
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{tmp_path}/new.meta")
        saver.restore(session, f"{tmp_path}/new")
        session.run(v1.tables_initializer())
        found = session.run("y:0", {"x:0": [b"b", b"a", b"z"]})
    np.testing.assert_array_equal(found, [12, 11, 10])


def test_loops_and_conditionals_are_pruned(edit: Edit, tmp_path: Path) -> None:
    """Of two loops of the old form, the one that needs the dropped variable goes."""
    v1.disable_control_flow_v2()
    try:
        with stock.checkpoint(tmp_path / "old"):
            x = v1.placeholder(tf.float32, [None], "x")
            w, other = (v1.get_variable(n, initializer=2.0, use_resource=True) for n in "wv")
            for name, factor in (("y", w), ("z", other)):
                _, looped = tf.while_loop(
                    lambda i, _: i < 3, lambda i, v, f=factor: (i + 1, v * f), [0, x]
                )
                v1.cond(x[0] > 0, lambda v=looped, f=factor: v + f, lambda v=looped: v, name=name)
    finally:
        v1.enable_control_flow_v2()
    given = ["--drop=^v$", "--fetch=y/Merge", "--rename==net/"]
    edit(f"--meta={tmp_path}/old", f"--output={tmp_path}/new", *given)
    assert not {n.name for n in meta_graph(tmp_path / "new").graph_def.node if n.name[0] in "vz"}
    (found,) = stock.run(tmp_path / "new.meta", ["y/Merge:0"], {"x:0": [1, -2]})
    np.testing.assert_array_equal(found, [10, -14])


def test_what_fetch_names_may_need_less(cnn_run: Path, edit: Edit, tmp_path: Path) -> None:
    given = ["--only=^conv", "--without_slots", "--fetch=conv2/MaxPool2d"]
    record = edit(f"--meta={cnn_run}", f"--output={tmp_path}/new", *given)
    assert record["graph"]["outputs"] == ["conv2/MaxPool2d:0"]
    proto = meta_graph(tmp_path / "new")
    assert list(proto.collection_def["predict"].node_list.value) == ["conv2/MaxPool2d:0"]
    assert not proto.signature_def
    fetches, feeds = ["conv2/MaxPool2d:0"], {"x:0": _rows()}
    (one,) = stock.run(f"{cnn_run}/my-model-200.meta", fetches, feeds)
    (other,) = stock.run(tmp_path / "new.meta", fetches, feeds)
    assert one.tobytes() == other.tobytes()


def test_a_checkpoint_of_other_kinds_of_numbers_is_refused(
    tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    with stock.checkpoint(tmp_path / "whole"):
        for name in "wb":
            v1.get_variable(name, initializer=[1])
    given = (f"--meta={linear_run}", f"--ckpt={tmp_path}/whole", "--fetch=x")
    line = refused(tool, "edit", *given, f"--output={tmp_path}/new")
    assert "no saver can be made for it" in line


def test_a_graph_without_a_saver_is_given_one(
    edit: Edit, tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    """A graph that is no .meta is none that can be edited."""
    old = _copy(linear_run / "my-model-300", tmp_path / "copy")
    stock.edit_meta(Path(f"{old}.meta"), lambda proto: proto.ClearField("saver_def"))
    edit(f"--meta={old}", f"--output={tmp_path}/new", "--cast=float64", "--rename=w=v")
    (found,) = stock.run(f"{tmp_path}/new.meta", ["w:0"])
    assert found.tobytes() == values_of(old)["w"].tobytes()
    (tmp_path / "frozen.pb").write_bytes(meta_graph(old).graph_def.SerializeToString())
    given = (f"--meta={tmp_path}/frozen.pb", f"--output={tmp_path}/newer")
    assert "is no .meta file" in refused(tool, "edit", *given)


@pytest.mark.parametrize("more", ["--rename=w=v", "--cast=float16"])
def test_a_result_that_restores_otherwise_is_not_kept(
    tool: Tool, linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    real = editing.write_tensors

    def write_another(reader: Any, tensors: Any, *rest: Any) -> None:
        """The bias in the place of the weight."""
        by_name = {tensor.was: tensor for tensor in tensors}
        swapped = {"w": by_name["b"], "b": by_name["w"]}
        real(reader, [swapped.get(t.was, t)._replace(name=t.name) for t in tensors], *rest)

    monkeypatch.setattr(editing, "write_tensors", write_another)
    line = refused(tool, "edit", f"--meta={linear_run}", f"--output={tmp_path}/new", more)
    assert line == "nothing is written, as w would be restored with another value"
    assert not os.listdir(tmp_path)


def test_a_disk_that_is_full_before_the_graph_is_one_line_and_leaves_nothing(
    tool: Tool, linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(edit_graph, "write_file", full)
    line = refused(tool, "edit", f"--meta={linear_run}", f"--output={tmp_path}/new")
    assert line.startswith(f"--output={tmp_path}/new: ")
    assert line.endswith("No space left on device")
    assert not os.listdir(tmp_path)


@every_entry
def test_checkpoints_of_public_projects_predict_the_same(
    entry: dict[str, Any], third_party: Path, tool: Tool, tmp_path: Path
) -> None:
    """A subset under other names, restored and run by a stock client."""
    feeds, output = feeds_of(entry), entry["suggested_output"]
    expected = _predicted(entry, feeds, tmp_path)  # It writes the feeds' file too.
    old, new = third_party / entry["meta"], tmp_path / "new"
    given = ["--without_slots", "--rename==net/", f"--fetch={output}"]
    given += [f"--meta={old}", f"--output={new}"]
    ended = tool("edit", *given)
    assert ended.code == 0, ended.err
    proto = meta_graph(new)
    nodes = {node.name for node in proto.graph_def.node}
    proto.meta_info_def.tensorflow_version = "2.0"  # One has a version that stock refuses.
    Path(f"{new}.meta").write_bytes(proto.SerializeToString())
    fed = {name: value for name, value in feeds.items() if name[:-2] in nodes}
    (found,) = stock.run(f"{new}.meta", [output], fed)
    assert found.tobytes() == expected.tobytes()
