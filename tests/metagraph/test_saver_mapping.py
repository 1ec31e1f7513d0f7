"""Variables under other names, in slices and in shards: read as the savers that wrote them do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.session import load_inference_graph
from metagraph.variables import VARIABLE_OPS, Part, Stored, checkpoint_keys, saver_keys
from tests.prediction import stock

v1 = tf.compat.v1

Values = dict[str, npt.NDArray[Any]]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.

V1, V2 = v1.train.SaverDef.V1, v1.train.SaverDef.V2
FORMATS = pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
KINDS = pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])


def _variables(meta: MetaGraphFile) -> list[str]:
    return [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]


def _ours(path: Path) -> Values:
    meta = read_meta_graph(str(path))
    names = [f"{name}:0" for name in _variables(meta)]
    with load_inference_graph(meta, names) as graph:
        return dict(zip(names, graph.run(), strict=True))


def _assert_as_stock(path: Path) -> Values:
    """All variables have the bytes that a stock client restores; returns them."""
    ours = _ours(path)
    prefix = str(path).removesuffix(".meta")
    if not v1.train.checkpoint_exists(prefix):  # Shards of the format V1.
        prefix += "-?????-of-00001"
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(str(path)).restore(session, prefix)
        for name, value in ours.items():
            tensor = graph.get_tensor_by_name(name)
            if tensor.dtype == tf.resource:
                tensor = tf.raw_ops.ReadVariableOp(
                    resource=tensor, dtype=tensor.op.get_attr("dtype")
                )
            theirs = session.run(tensor)
            assert (value.dtype, value.shape) == (theirs.dtype, theirs.shape)
            assert value.tobytes() == theirs.tobytes()
    return ours


def _save(path: Path, saver: Callable[[], Any]) -> None:
    """Saves the default graph, after its initializer, by what `saver` gives."""
    with v1.Session() as session:
        built = saver()
        session.run(v1.global_variables_initializer())
        built.save(session, str(path).removesuffix(".meta"))


def _variable(name: str, value: Any, resource: bool = False) -> tf.Variable:
    return v1.get_variable(name, initializer=np.asarray(value), use_resource=resource)


def _edit(path: Path, edit: Callable[[MetaGraphDef], object]) -> None:
    stock.edit_meta(path, edit)


@KINDS
@FORMATS
def test_moving_averages_are_restored_into_the_raw_weights(
    tmp_path: Path, resource: bool, version: int
) -> None:
    path = tmp_path / "m.meta"
    values = {"w": [3, 4], "w/ExponentialMovingAverage": [2, 3], "step": [7, 7]}
    with stock.checkpoint(tmp_path / "m", write_version=version):
        for name, value in values.items():
            _variable(name, np.array(value, np.float32))
    with tf.Graph().as_default():
        w = _variable("w", np.array([0, 0], np.float32), resource)
        names = v1.train.ExponentialMovingAverage(0.5).variables_to_restore([w])
        assert list(names) == ["w/ExponentialMovingAverage"]
        other = _variable("other", np.array([0, 0], np.float32), resource)
        v1.train.Saver({**names, "step": other}).export_meta_graph(str(path))
    ours = _assert_as_stock(path)
    assert ours["w:0"].tolist() == [2, 3]
    assert ours["other:0"].tolist() == [7, 7]


@KINDS
@FORMATS
@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables_are_slices_of_one(
    tmp_path: Path, resource: bool, version: int, sharded: bool
) -> None:
    path = tmp_path / "m.meta"
    with tf.Graph().as_default():
        v1.get_variable(
            "w",
            shape=[10, 4],
            initializer=v1.random_normal_initializer(),
            partitioner=v1.fixed_size_partitioner(3),
            use_resource=resource,
        )
        _variable("b", np.float32(7), resource)
        _save(path, lambda: v1.train.Saver(sharded=sharded, write_version=version))
    ours = _assert_as_stock(path)
    parts = [ours[f"w/part_{i}:0"] for i in range(3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    if version == V2:
        full = tf.train.load_variable(str(tmp_path / "m"), "w")
        assert np.concatenate(parts).tobytes() == full.tobytes()


def test_parts_of_a_tensor_that_is_stored_whole(tmp_path: Path) -> None:
    full = np.arange(40, dtype=np.float32).reshape(4, 10)
    with stock.checkpoint(tmp_path / "m"):
        _variable("w", full)
    with tf.Graph().as_default():
        v1.get_variable(
            "w",
            shape=[4, 10],
            dtype=tf.float32,
            partitioner=v1.fixed_size_partitioner(2, axis=1),
            use_resource=False,
        )
        v1.train.Saver().export_meta_graph(str(tmp_path / "m.meta"))
    ours = _assert_as_stock(tmp_path / "m.meta")
    np.testing.assert_array_equal(ours["w/part_1:0"], full[:, 5:])


@KINDS
def test_shards_on_several_devices(tmp_path: Path, resource: bool) -> None:
    path = tmp_path / "m.meta"
    with stock.checkpoint(tmp_path / "m"):
        for task in range(3):
            _variable(f"v{task}", np.array([task, 2], np.float32), resource)
    with tf.Graph().as_default():
        for task in range(3):
            with tf.device(f"/job:ps/task:{task}"):
                _variable(f"v{task}", np.array([0, 0], np.float32), resource)
        v1.train.Saver(sharded=True).export_meta_graph(str(path), clear_devices=True)
    nodes = read_meta_graph(str(path)).nodes
    assert {f"save/restore_shard_{i}" for i in (1, 2)} <= nodes.keys()
    assert _assert_as_stock(path)["v2:0"].tolist() == [2, 2]


@KINDS
def test_the_savers_shape_gives_way_to_the_variables(tmp_path: Path, resource: bool) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _variable("w", np.arange(6, dtype=np.float32).reshape(2, 3))
    with tf.Graph().as_default():
        _variable("w", np.zeros((3, 2), np.float32), resource)
        v1.train.Saver(reshape=True).export_meta_graph(str(tmp_path / "m.meta"))
    ours = _assert_as_stock(tmp_path / "m.meta")
    assert ours["w:0"].shape == (3, 2)


def _renamed(path: Path) -> None:
    """The variable `w` = 5, stored as `old/w`."""
    with tf.Graph().as_default():
        w = _variable("w", np.float32(5))
        _save(path, lambda: v1.train.Saver({"old/w": w}))


def test_of_several_savers_the_files_own_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    with tf.Graph().as_default():
        w, u = _variable("w", np.float32(5)), _variable("u", np.float32(6))
        v1.train.Saver({"u": w, "w": u})
        _save(path, lambda: v1.train.Saver({"w": w, "u": u}))
    assert _assert_as_stock(path)["w:0"] == 5


def test_without_a_saver_what_the_graphs_restore_operations_agree_on_counts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)
    _edit(path, lambda proto: proto.ClearField("saver_def"))
    assert _ours(path)["w:0"] == 5


def test_a_variable_under_its_own_name_needs_no_saver(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    with stock.checkpoint(tmp_path / "m"):
        _variable("w", np.float32(5), resource=True)

    def strip(proto: MetaGraphDef) -> None:
        proto.ClearField("saver_def")
        kept = [n for n in proto.graph_def.node if not n.name.startswith("save/")]
        kept = [type(n).FromString(n.SerializeToString()) for n in kept]
        for node in kept:
            if node.op == "VarHandleOp":
                assert node.attr["shared_name"].s == b"w"
        del proto.graph_def.node[:]
        proto.graph_def.node.extend(kept)

    _edit(path, strip)
    assert _ours(path)["w:0"] == 5


def test_a_partitioned_variable_without_a_saver(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    with tf.Graph().as_default():
        v1.get_variable(
            "w",
            shape=[10],
            initializer=v1.random_normal_initializer(),
            partitioner=v1.fixed_size_partitioner(2),
            use_resource=False,
        )
        _save(path, v1.train.Saver)

    def strip(proto: MetaGraphDef) -> None:
        proto.ClearField("saver_def")
        for node in proto.graph_def.node:
            if node.op == "RestoreV2":
                node.op = "FromAnotherWorld"

    _edit(path, strip)
    full = tf.train.load_variable(str(tmp_path / "m"), "w")
    np.testing.assert_array_equal(_ours(path)["w/part_1:0"], full[5:])


def _constant(proto: MetaGraphDef, name: str) -> Any:
    (node,) = (node for node in proto.graph_def.node if node.name == name)
    return node.attr["value"].tensor


def _no_names(proto: MetaGraphDef) -> None:
    del _constant(proto, "save/RestoreV2/tensor_names").string_val[:]


def _huge_shape(proto: MetaGraphDef) -> None:
    _constant(proto, "save/RestoreV2/tensor_names").tensor_shape.dim[0].size = -5


def _not_utf8(proto: MetaGraphDef) -> None:
    _constant(proto, "save/RestoreV2/tensor_names").string_val[0] = b"\xff\xfe"


def _bad_slice(proto: MetaGraphDef) -> None:
    _constant(proto, "save/RestoreV2/shape_and_slices").string_val[0] = b"10 4 0,99:oops"


def _slice_outside(proto: MetaGraphDef) -> None:
    _constant(proto, "save/RestoreV2/shape_and_slices").string_val[0] = b"10 5,6"


def _cycle(proto: MetaGraphDef) -> None:
    node = proto.graph_def.node.add(name="round", op="Identity")
    node.input.append("round")
    for restore in proto.graph_def.node:
        if restore.op == "RestoreV2":
            restore.input[1] = "round"


def _gone(proto: MetaGraphDef) -> None:
    for restore in proto.graph_def.node:
        if restore.op == "RestoreV2":
            restore.input[1] = "no/such/node"


@pytest.mark.parametrize(
    "damage",
    [_no_names, _huge_shape, _not_utf8, _bad_slice, _slice_outside, _cycle, _gone],
)
def test_a_damaged_saver_leaves_the_variables_own_names(
    tmp_path: Path, damage: Callable[[MetaGraphDef], None]
) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)
    _edit(path, damage)
    with pytest.raises(CheckpointError, match=r"lacks 1 of the 1 .*: w$"):
        _ours(path)


def test_one_name_that_fills_a_whole_constant_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)

    def widen(proto: MetaGraphDef) -> None:
        for part in ("tensor_names", "shape_and_slices"):
            _constant(proto, f"save/RestoreV2/{part}").tensor_shape.dim[0].size = 1 << 60

    _edit(path, widen)
    assert _ours(path)["w:0"] == 5


def test_a_missing_key_is_named_with_its_variable(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    with stock.checkpoint(tmp_path / "m"):
        _variable("w", np.float32(5))  # Of the right name, and not what the saver means.
    with tf.Graph().as_default():
        w = _variable("w", np.float32(5))
        v1.train.Saver({"old/w": w}).export_meta_graph(str(path))
    with pytest.raises(CheckpointError, match=r"lacks 1 of the 1 .*: w \(saved as old/w\)$"):
        _ours(path)


def test_a_slice_of_another_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)

    def cut(proto: MetaGraphDef) -> None:
        _constant(proto, "save/RestoreV2/shape_and_slices").string_val[0] = b"10 0,1"

    _edit(path, cut)
    with pytest.raises(CheckpointError, match=r"w \(saved as old/w\) is float32 \[\] \(of which"):
        _ours(path)


def test_a_saved_model_of_today_names_its_variables_by_object(tmp_path: Path) -> None:
    model = tf.Module()
    model.layer = tf.Module()
    model.layer.kernel = tf.Variable([[2.0], [3.0]], name="another_name")
    model.serve = tf.function(
        lambda x: {"y": x @ model.layer.kernel},
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")],
    )
    tf.saved_model.save(model, str(tmp_path), signatures=model.serve)
    saved = SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    prefix = str(tmp_path / "variables" / "variables")
    meta = MetaGraphFile(str(tmp_path), prefix, saved.meta_graphs[0])
    (variable,) = _variables(meta)
    held = dict(tf.train.list_variables(prefix))
    key = "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    assert checkpoint_keys(meta, [variable], held) == {variable: Stored(key)}
    signature = meta.proto.signature_def["serving_default"]
    x, y = signature.inputs["x"].name, signature.outputs["y"].name
    with load_inference_graph(meta, [y], [x]) as graph:
        np.testing.assert_array_equal(graph.run(np.array([[1, 10]], np.float32))[0], [[32.0]])


def _old_restore(op: str, texts: Mapping[str, str]) -> MetaGraphFile:
    """A variable `w`, restored by an operation of 2016 with constants of single texts."""
    proto = MetaGraphDef()
    nodes = proto.graph_def.node
    nodes.add(name="w", op="Variable")
    for name, text in texts.items():
        value = nodes.add(name=name, op="Const").attr["value"].tensor
        value.CopyFrom(tf.make_tensor_proto(text))
    nodes.add(name="r", op=op, input=["pattern", *texts])
    nodes.add(name="a", op="Assign", input=["w", "r"])
    nodes.add(name="all", op="NoOp", input=["^a"])
    proto.saver_def.restore_op_name = "all"
    return MetaGraphFile("m.meta", "m", proto)


def test_restore_operations_of_2016_are_read() -> None:
    meta = _old_restore("Restore", {"n": "key"})
    assert checkpoint_keys(meta, ["w"], ["key"]) == {"w": Stored("key")}
    meta = _old_restore("RestoreSlice", {"n": "key", "s": "10 4 2,3:-"})
    part = Part((10, 4), (2, 0), (3, 4))
    assert checkpoint_keys(meta, ["w"], ["key"]) == {"w": Stored("key", part)}


def test_slice_information_in_the_collections_must_be_inside_its_tensor() -> None:
    proto = MetaGraphDef()
    proto.graph_def.node.add(name="w", op="Variable")
    entry = VariableDef(variable_name="w:0")
    entry.save_slice_info_def.full_name = "full"
    entry.save_slice_info_def.full_shape.append(4)
    entry.save_slice_info_def.var_offset.append(2)
    entry.save_slice_info_def.var_shape.append(3)
    proto.collection_def["variables"].bytes_list.value.append(entry.SerializeToString())
    meta = MetaGraphFile("m.meta", "m", proto)
    assert checkpoint_keys(meta, ["w"], ["full"]) == {"w": Stored("w")}


def test_what_the_saver_itself_stores(tmp_path: Path) -> None:
    """Under its own keys; what it leaves out is not in the list, whatever its name."""
    with tf.Graph().as_default() as graph:
        w = v1.get_variable("w", initializer=1.0)
        v1.get_variable("left", initializer=2.0)
        saver = v1.train.Saver({"stored": w})
        proto = v1.train.export_meta_graph(graph=graph, saver_def=saver.as_saver_def())
    (tmp_path / "m.meta").write_bytes(proto.SerializeToString())
    assert saver_keys(read_meta_graph(str(tmp_path / "m.meta"))) == {"w": Stored("stored")}


def _cast_in_saver(proto: MetaGraphDef, source: int, target: int) -> None:
    """Has the saver of `w` restore another dtype, and cast it."""
    nodes = {node.name: node for node in proto.graph_def.node}
    nodes["save/RestoreV2"].attr["dtypes"].list.type[:] = [source]
    cast = proto.graph_def.node.add(name="save/cast", op="Cast", input=["save/RestoreV2"])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = source, target
    taker = nodes["save/Identity" if "save/Identity" in nodes else "save/Assign"]
    index = [*taker.input].index("save/RestoreV2")
    taker.input[index] = "save/cast"
    if "T" in taker.attr:
        taker.attr["T"].type = target


@KINDS
@pytest.mark.parametrize("stored", [tf.float16, tf.bfloat16, tf.float64], ids=lambda d: d.name)
def test_a_saver_may_cast_what_it_restores(
    tmp_path: Path, resource: bool, stored: tf.DType
) -> None:
    value = np.linspace(0, 1, 5)
    with stock.checkpoint(tmp_path / "stored"):
        v1.get_variable("w", initializer=tf.cast(value, stored))
    with stock.checkpoint(tmp_path / "model"):
        v1.get_variable("w", initializer=np.zeros(5, np.float32), use_resource=resource)
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"stored{suffix}").replace(tmp_path / f"model{suffix}")
    path = tmp_path / "model.meta"
    with pytest.raises(CheckpointError, match=rf"w is {stored.name} \[5\], the graph has float32"):
        _ours(path)
    types = stored.as_datatype_enum, tf.float32.as_datatype_enum
    stock.edit_meta(path, lambda proto: _cast_in_saver(proto, *types))
    assert checkpoint_keys(read_meta_graph(str(path)), ["w"], ["w"]) == {
        "w": Stored("w", cast=True)
    }
    expected = value.astype(stored.as_numpy_dtype).astype(np.float32)
    assert _assert_as_stock(path)["w:0"].tobytes() == expected.tobytes()


def test_a_saver_that_casts_numbers_to_integers_is_not_followed(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "stored"):
        v1.get_variable("w", initializer=1.5)
    with stock.checkpoint(tmp_path / "model"):
        v1.get_variable("w", initializer=1)
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"stored{suffix}").replace(tmp_path / f"model{suffix}")
    path = tmp_path / "model.meta"
    types = tf.float32.as_datatype_enum, tf.int32.as_datatype_enum
    stock.edit_meta(path, lambda proto: _cast_in_saver(proto, *types))
    with pytest.raises(CheckpointError, match=r"w is float32 \[\], the graph has int32"):
        _ours(path)
