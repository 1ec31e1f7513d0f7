"""Variables under other names, in slices and in shards: read as the savers that wrote them do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import CheckpointReader
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.opening import open_model
from metagraph.variables import (
    VARIABLE_OPS,
    Part,
    Stored,
    Variable,
    checkpoint_keys,
    read_values,
    saver_keys,
)
from tests.metagraph.made import of_nodes, of_proto, refused, run, saved
from tests.prediction import stock

v1 = tf.compat.v1

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of the format V1.

V1, V2 = v1.train.SaverDef.V1, v1.train.SaverDef.V2
FORMATS = pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
SLICE = Part((10, 4), (2, 0), (3, 4))
KINDS = pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])


def _variables(meta: MetaGraphFile) -> list[str]:
    return [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]


def _ours(path: Path) -> dict[str, npt.NDArray[Any]]:
    meta = read_meta_graph(str(path))
    names = [f"{name}:0" for name in _variables(meta)]
    return dict(zip(names, run(meta, names), strict=True))


def _assert_as_stock(path: Path) -> dict[str, npt.NDArray[Any]]:
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


def test_without_a_saver_what_all_restore_operations_agree_on_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)
    stock.edit_meta(path, lambda proto: proto.ClearField("saver_def"))
    assert _ours(path)["w:0"] == 5


def test_a_variable_under_its_own_name_needs_no_saver(tmp_path: Path) -> None:
    saved(tmp_path, lambda: _variable("w", np.float32(5), resource=True))

    def strip(proto: MetaGraphDef) -> None:
        proto.ClearField("saver_def")
        kept = [n for n in proto.graph_def.node if not n.name.startswith("save/")]
        kept = [type(n).FromString(n.SerializeToString()) for n in kept]
        del proto.graph_def.node[:]
        proto.graph_def.node.extend(kept)

    stock.edit_meta(tmp_path / "m.meta", strip)
    assert _ours(tmp_path / "m.meta")["w:0"] == 5


LACKS = r"lacks 1 of the 1 .*: w$"
TAKES = r"w \(saved as old/w\) is float32 \[\] \(of which it takes \[1\] at"
NAMES, SLICES = "tensor_names", "shape_and_slices"


def _texts(part: str, *texts: bytes, size: int = 1) -> Callable[[MetaGraphDef], None]:
    """Gives the saver of one variable other names or slices, in a constant of this size."""

    def write(proto: MetaGraphDef) -> None:
        (node,) = (n for n in proto.graph_def.node if n.name == f"save/RestoreV2/{part}")
        node.attr["value"].tensor.string_val[:] = texts
        node.attr["value"].tensor.tensor_shape.dim[0].size = size

    return write


def _names_of(source: str) -> Callable[[MetaGraphDef], None]:
    """Has the names come from a node that is not there, or from one that is its own input."""

    def aim(proto: MetaGraphDef) -> None:
        proto.graph_def.node.add(name="round", op="Identity", input=["round"])
        for restore in proto.graph_def.node:
            if restore.op == "RestoreV2":
                restore.input[1] = source

    return aim


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_texts(NAMES), LACKS),
        (_texts(NAMES, b"old/w", size=-5), LACKS),
        (_texts(NAMES, b"\xff\xfe"), LACKS),
        (_texts(SLICES, b"10 4 0,99:oops"), LACKS),
        (_texts(SLICES, b"10 5,6"), LACKS),
        (_names_of("round"), LACKS),
        (_names_of("no/such/node"), LACKS),
        (_texts(SLICES, b"10 0,1"), TAKES),
    ],
    ids=["none", "shape", "no UTF-8", "no slice", "outside", "cycle", "gone", "another tensor's"],
)
def test_a_damaged_saver_leaves_the_variables_own_names(
    tmp_path: Path, damage: Callable[[MetaGraphDef], None], message: str
) -> None:
    _renamed(tmp_path / "m.meta")
    stock.edit_meta(tmp_path / "m.meta", damage)
    with refused(message):
        _ours(tmp_path / "m.meta")


def test_one_name_that_fills_a_whole_constant_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.meta"
    _renamed(path)
    stock.edit_meta(path, _texts(NAMES, b"old/w", size=1 << 60))
    stock.edit_meta(path, _texts(SLICES, b"", size=1 << 60))
    assert _ours(path)["w:0"] == 5


def test_a_missing_key_is_named_with_its_variable(tmp_path: Path) -> None:
    saved(tmp_path, lambda: _variable("w", np.float32(5)))  # Not what the saver means.
    with tf.Graph().as_default():
        w = _variable("w", np.float32(5))
        v1.train.Saver({"old/w": w}).export_meta_graph(f"{tmp_path}/m.meta")
    with refused(r"lacks 1 of the 1 .*: w \(saved as old/w\)$"):
        _ours(tmp_path / "m.meta")


def test_a_saved_model_of_today_names_its_variables_by_object(tmp_path: Path) -> None:
    model = tf.Module()
    model.layer = tf.Module()
    model.layer.kernel = tf.Variable([[2.0], [3.0]], name="another_name")
    model.serve = tf.function(
        lambda x: {"y": x @ model.layer.kernel},
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")],
    )
    tf.saved_model.save(model, str(tmp_path), signatures=model.serve)
    meta = open_model(str(tmp_path))
    (variable,) = _variables(meta)
    held = dict(tf.train.list_variables(meta.prefix))
    key = "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    assert checkpoint_keys(meta, [variable], held) == {variable: Stored(key)}
    signature = meta.proto.signature_def["serving_default"]
    x, y = signature.inputs["x"].name, signature.outputs["y"].name
    assert run(meta, [y], {x: np.array([[1, 10]], np.float32)})[0].tolist() == [[32.0]]


@pytest.mark.parametrize(
    ("op", "texts", "stored"),
    [
        ("Restore", {"n": "key"}, Stored("key")),
        ("RestoreSlice", {"n": "key", "s": "10 4 2,3:-"}, Stored("key", SLICE)),
    ],
)
def test_restore_operations_of_2016_are_read(
    op: str, texts: Mapping[str, str], stored: Stored
) -> None:
    """They have constants of single texts."""
    meta = of_nodes(
        ("w", "Variable", []),
        *((name, "Const", []) for name in texts),
        ("r", op, ["pattern", *texts]),
        ("a", "Assign", ["w", "r"]),
        ("all", "NoOp", ["^a"]),
    )
    for name, text in texts.items():
        meta.nodes[name].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
    meta.proto.saver_def.restore_op_name = "all"
    assert checkpoint_keys(meta, ["w"], ["key"]) == {"w": stored}


def test_what_the_saver_itself_stores() -> None:
    """Under its own keys; what it leaves out is not in the list, whatever its name."""
    with tf.Graph().as_default() as graph:
        w = v1.get_variable("w", initializer=1.0)
        v1.get_variable("left", initializer=2.0)
        saver = v1.train.Saver({"stored": w}).as_saver_def()
        meta = of_proto(v1.train.export_meta_graph(graph=graph, saver_def=saver))
    assert saver_keys(meta) == {"w": Stored("stored")}


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


def _cast(folder: Path, stored: tuple[Any, tf.DType], wanted: Any, resource: bool = False) -> Path:
    """A checkpoint of `w` with a value of a dtype, and a graph whose `w` is of another one."""
    with stock.checkpoint(folder / "stored"):
        v1.get_variable("w", initializer=tf.cast(*stored))
    with stock.checkpoint(folder / "model"):
        v1.get_variable("w", initializer=wanted, use_resource=resource)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"stored{suffix}").replace(folder / f"model{suffix}")
    return folder / "model.meta"


@KINDS
@pytest.mark.parametrize("stored", [tf.float16, tf.bfloat16, tf.float64], ids=lambda d: d.name)
def test_a_saver_may_cast_what_it_restores(
    tmp_path: Path, resource: bool, stored: tf.DType
) -> None:
    value = np.linspace(0, 1, 5)
    path = _cast(tmp_path, (value, stored), np.zeros(5, np.float32), resource)
    with refused(rf"w is {stored.name} \[5\], the graph has float32"):
        _ours(path)
    types = stored.as_datatype_enum, tf.float32.as_datatype_enum
    stock.edit_meta(path, lambda proto: _cast_in_saver(proto, *types))
    assert saver_keys(read_meta_graph(str(path))) == {"w": Stored("w", cast=True)}
    expected = value.astype(stored.as_numpy_dtype).astype(np.float32)
    assert _assert_as_stock(path)["w:0"].tobytes() == expected.tobytes()


def test_a_saver_that_casts_numbers_to_integers_is_not_followed(tmp_path: Path) -> None:
    path = _cast(tmp_path, (1.5, tf.float32), 1)
    types = tf.float32.as_datatype_enum, tf.int32.as_datatype_enum
    stock.edit_meta(path, lambda proto: _cast_in_saver(proto, *types))
    with refused(r"w is float32 \[\], the graph has int32"):
        _ours(path)


# Whole and broken checkpoints.


VALUES: dict[str, npt.NDArray[Any]] = {
    "layer/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
}
VARIABLES = [Variable(k, tf.as_dtype(v.dtype), tf.TensorShape(v.shape)) for k, v in VALUES.items()]


def _meta(prefix: Path | str) -> MetaGraphFile:
    """A file at `prefix` whose graph has the nodes and no saver."""
    names = ["layer/w", "step", "w", *(f"n{i}" for i in range(12))]
    proto = of_nodes(*((name, "VariableV2", []) for name in names)).proto
    return MetaGraphFile(f"{prefix}.meta", str(prefix), proto)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    with stock.checkpoint(tmp_path / "m-7"):
        for name, value in VALUES.items():
            _variable(name, value)
        v1.get_variable("not/asked/for", [3], use_resource=False)
    return tmp_path / "m-7"


def test_a_shape_that_is_not_known_takes_any(prefix: Path) -> None:
    variable = Variable("layer/w", tf.float32, None)
    assert read_values(_meta(prefix), [variable])["layer/w"].shape == (2, 3)


def test_the_state_file_and_folders_of_its_name_are_not_looked_at(prefix: Path) -> None:
    prefix.mkdir()  # tf.train.load_checkpoint would follow a state file in it.
    (prefix / "checkpoint").write_text('model_checkpoint_path: "other"\n')
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "C:\\\\gone\\\\m-9"\n')
    found = read_values(_meta(prefix), VARIABLES)
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes()


def _refused(prefix: Path, variables: list[Variable], message: str) -> None:
    with refused(message):
        read_values(_meta(prefix), variables)


def test_what_is_missing_is_named(prefix: Path) -> None:
    missing = [Variable(f"n{i}", tf.float32, ()) for i in range(12)]
    _refused(prefix, [*VARIABLES, *missing], r"lacks 12 of the 14 .*: n0, n1, .*, n9 and 2 more$")
    Path(f"{prefix}.data-00000-of-00001").rename(f"{prefix}.data-00000-of-00002")
    _refused(prefix, VARIABLES, "lacks shard 00001 of its 2 data files")
    gone = prefix.with_name("m")
    _refused(gone, VARIABLES, r"expected .*/m\.index and .*/m\.data-00000-of-00001")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (("layer/w", tf.float32, [3, 2]), r"float32 \[2, 3\], the graph has float32 \[3, 2\]"),
        (("layer/w", tf.float32, [2]), r"layer/w is float32 \[2, 3\]"),
        (("layer/w", tf.float32, [None, 4]), r"has float32 \[\?, 4\]"),
        (("step", tf.int32, None), "has int32 of any shape"),
        (("step", tf.int32, []), r"step is int64 \[\], the graph has int32 \[\]"),
    ],
)
def test_another_shape_or_dtype_is_refused(
    prefix: Path, variable: tuple[str, tf.DType, Any], message: str
) -> None:
    name, dtype, shape = variable
    found = Variable(name, dtype, tf.TensorShape(shape))
    _refused(prefix, [found], f"does not fit its graph: .*{message}")


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_damage_is_told(prefix: Path, suffix: str, how: str) -> None:
    path = Path(f"{prefix}.{suffix}")
    content = bytearray(path.read_bytes())
    content[8] ^= 0x10
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    _refused(prefix, VARIABLES, "m-7 is damaged")


def test_a_shape_that_the_files_are_too_small_for_takes_no_memory(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        save = tf.raw_ops.SaveV2(
            prefix=f"{tmp_path}/m",
            tensor_names=["w"] * 2,
            shape_and_slices=[f"1000000 1000000 {i},1:0,1" for i in range(2)],
            tensors=[tf.constant([[float(i)]]) for i in range(2)],
        )
        session.run(save)
    variable = Variable("w", tf.float32, None)
    _refused(tmp_path / "m", [variable], r"smaller than the values .* w float32 \[1000000, ")


def test_a_tensor_of_many_parts_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored whole, and each part is a column of it."""
    full = np.arange(40, dtype=np.float32).reshape(4, 10)
    saved(tmp_path, lambda: _variable("w", full))
    with tf.Graph().as_default():
        columns = v1.fixed_size_partitioner(10, axis=1)
        v1.get_variable("w", [4, 10], partitioner=columns, use_resource=False)
        v1.train.Saver().export_meta_graph(f"{tmp_path}/m.meta")
    _assert_as_stock(tmp_path / "m.meta")
    keys: list[str] = []
    read = CheckpointReader.read

    def counted(self: CheckpointReader, key: str) -> npt.NDArray[Any]:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(CheckpointReader, "read", counted)
    names = [f"w/part_{i}" for i in range(10)]
    variables = [Variable(name, tf.float32, tf.TensorShape([4, 1])) for name in names]
    values = read_values(read_meta_graph(str(tmp_path / "m.meta")), variables)
    assert keys == ["w"]
    np.testing.assert_array_equal(np.hstack([values[name] for name in names]), full)
    assert all(value.base is None for value in values.values())  # None keeps all of `w` alive.
