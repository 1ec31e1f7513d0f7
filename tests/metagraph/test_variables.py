"""Variables under other names, in slices and in shards, as their savers say; which are slots."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from checkpoints.bundle import write_bundle
from checkpoints.folder import find_variables
from checkpoints.reader import CheckpointReader
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.opening import open_model
from metagraph.variables import (
    VARIABLE_OPS,
    Part,
    Stored,
    Variable,
    checkpoint_keys,
    graph_variables,
    read_values,
    saver_keys,
    slot_names,
    unavailable,
)
from tests.metagraph.made import of_graph, of_nodes, of_proto, refused, run, saved
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
    assert checkpoint_keys(meta, [variable], {key: key for key in held}) == {variable: Stored(key)}
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
    assert checkpoint_keys(meta, ["w"], {"key": "key"}) == {"w": stored}


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
    _refused(
        prefix,
        [*VARIABLES, *missing],
        r"lacks 12 of the 14 .*: n0, n1, .*, n9 and 2 more; a further --ckpt",
    )
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


# What only an optimizer needs, against what the optimizers of TensorFlow say of themselves.


VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
OPTIMIZERS = {
    "descent": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "adam": lambda: v1.train.AdamOptimizer(0.1),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.1, momentum=0.9, centered=True),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "adadelta": lambda: v1.train.AdadeltaOptimizer(0.1),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1),
    "dual": lambda: v1.train.AdagradDAOptimizer(0.1, v1.train.get_global_step()),
    "proximal": lambda: v1.train.ProximalAdagradOptimizer(0.1),
}


def _train(make: Callable[[], Any], resource: bool = False) -> tuple[set[str], set[str]]:
    """Builds a dense and a sparse variable, a moving average and a batch's mean, and trains them.

    Returns:
      All variables, and those that the optimizer says are its own.
    """
    with v1.variable_scope("net", use_resource=resource):
        weights = v1.get_variable("w", [3, 2])
        table = v1.get_variable("table", [5, 3])
        mean = v1.get_variable("BatchNorm/moving_mean", [2], trainable=False)
        rate = v1.get_variable("rate", [], trainable=False)
    v1.train.get_or_create_global_step()
    v1.train.ExponentialMovingAverage(0.9).apply([weights])
    rows = tf.gather(table, [1, 2])
    loss = tf.reduce_sum(tf.matmul(rows, weights) - mean) * rate
    optimizer = make()
    optimizer.minimize(loss, v1.train.get_global_step())
    keys = {variable.op.name for variable in v1.global_variables()}
    return keys, {variable.op.name for variable in optimizer.variables()}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_as_the_optimizer_says(make: Callable[[], Any], resource: bool) -> None:
    with tf.Graph().as_default() as graph:
        keys, expected = _train(make, resource)
        v1.train.Saver()
        meta = of_proto(v1.train.export_meta_graph(graph=graph))
    assert slot_names(keys, meta) == slot_names(keys) == expected


def test_the_graph_goes_before_the_names() -> None:
    """A variable that is trained is no slot, whatever it is called."""
    meta = of_graph(lambda: [v1.get_variable(name, [2]) for name in ("w", "w/Adam")])
    assert slot_names(["w", "w/Adam"]) == {"w/Adam"}
    assert slot_names(["w", "w/Adam"], meta) == set()


def test_slots_that_the_saver_renames() -> None:
    with tf.Graph().as_default() as graph:
        _, own = _train(OPTIMIZERS["adam"])
        names = {f"v{i}": variable for i, variable in enumerate(v1.global_variables())}
        saver = v1.train.Saver(names).as_saver_def()
        meta = of_proto(v1.train.export_meta_graph(graph=graph, saver_def=saver))
    expected = {key for key, variable in names.items() if variable.op.name in own}
    assert len(expected) == 6
    assert slot_names(names, meta) == expected


def test_slots_of_a_partitioned_variable() -> None:
    def build() -> None:
        splits = v1.fixed_size_partitioner(2)
        w = v1.get_variable("w", [4, 3], partitioner=splits, use_resource=False)
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(tf.convert_to_tensor(w)))
        v1.train.Saver()

    keys = {"w", "w/Adam", "w/Adam_1", "beta1_power", "beta2_power"}
    assert slot_names(keys, of_graph(build)) == slot_names(keys) == keys - {"w"}


@pytest.mark.parametrize("make", [tf.keras.optimizers.Adam, v1.train.AdamOptimizer])
def test_object_based(make: Callable[[float], Any], tmp_path: Path) -> None:
    variable, optimizer = tf.Variable([1.0, 2.0]), make(0.1)
    optimizer.apply_gradients([(tf.ones([2]), variable)])
    checkpoint = tf.train.Checkpoint(net=variable, optimizer=optimizer)
    keys = CheckpointReader(checkpoint.save(str(tmp_path / "c"))).shapes.keys()
    assert len(keys) > 6
    kept = {f"net{VALUE}", f"save_counter{VALUE}", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert keys - slot_names(keys) == kept


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("training/Adam/w/m", True),
        ("training/Adam/w/vhat", True),
        ("training/Net/w/m", False),  # No optimizer's scope.
        ("Adam/iter", True),
        ("training/RMSprop/Variable_3", True),
        ("net/iter", False),
        ("w/adam_m", True),
        ("w_slot_vr", True),
        ("u_slot_vr", False),  # There is no u.
        ("w/LAMB", True),
        ("w/lambda", False),
        ("w/ExponentialMovingAverage", False),
        ("w/biased", False),
        ("beta1_power_2", True),
        ("net/beta1_powers", False),
        ("adamant/w", False),
        ("momentum_net/kernel", False),
        ("w/.OPTIMIZER_SLOT/opt/m" + VALUE, True),
        ("opt/beta_1" + VALUE, True),
        ("optics/kernel" + VALUE, False),
        ("optimizer/_variables/2" + VALUE, True),
        ("optimizer/_trainable_variables/2" + VALUE, False),  # The model's, by Keras 3.
        ("_variables/0" + VALUE, False),
        ("a/" * 100_000 + "Adam", False),  # Nobody's; and it takes no time.
    ],
)
def test_other_names(key: str, expected: bool) -> None:
    assert (key in slot_names({"w", key})) == expected


def test_of_third_parties(third_party: Path) -> None:
    counts = {}
    for path in sorted(third_party.rglob("*.meta")):
        meta = read_meta_graph(str(path))
        keys = CheckpointReader(meta.prefix).shapes.keys()
        found = slot_names(keys, meta)
        assert found == slot_names(keys)
        counts[path.stem] = (len(found), len(keys))
    assert counts == {
        "PNet-18": (15, 31),
        "RNet-14": (17, 35),
        "checkpoint--1": (58, 86),
        "t044_s09.ckpt": (46, 72),
        "model.ckpt-4": (26, 38),
        "model": (0, 2),
        "export": (0, 2),
    }


# Variables that no checkpoint has, or that lie in several, or under the names of objects.


@KINDS
@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        (lambda: np.array([1, 2], np.float32), [1, 2]),
        (lambda: tf.zeros([2]), [0, 0]),
        (lambda: tf.cast(tf.range(2), tf.float32) * 3 + 1, [1, 4]),
        (lambda: tf.random.uniform([2]), None),
        (lambda: v1.placeholder_with_default([1.0, 1], [2], "p") * 2, None),
        (lambda: _variable("u", np.array([1, 1], np.float32)) + 1.0, None),
        (lambda: tf.while_loop(lambda x: x[0] < 3, lambda x: x + 1, [tf.zeros([2])]), None),
    ],
    ids=["constant", "zeros", "computed", "random", "fed", "another's", "loop"],
)
def test_a_local_variable_has_its_initial_value_where_that_is_pure(
    initial: Callable[[], Any],
    expected: list[float] | None,
    resource: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As no Saver stores it. Else it has to be fed, as a line says; any other is missing."""
    caplog.set_level("INFO", logger="absl")

    def build() -> None:
        value, local = initial(), [v1.GraphKeys.LOCAL_VARIABLES]
        made = v1.get_variable("l", initializer=value, use_resource=resource, collections=local)
        tf.add(made, _variable("w", np.array([10, 20], np.float32), resource=resource), name="y")

    meta = saved(tmp_path, build)
    if expected is None:
        with refused(r"lacks 1 of the 2 .*: l \(local: no .* predict\.py has --feed=l=\.\.\.\);"):
            run(meta, ["y:0"])
        assert run(meta, ["y:0"], {"l:0": np.array([3, 4], np.float32)})[0].tolist() == [13, 24]
        return
    assert unavailable(meta, graph_variables(meta)) == []
    assert run(meta, ["y:0"])[0].tolist() == [10 + expected[0], 20 + expected[1]]
    assert "l: in no checkpoint, as it is local" in caplog.text
    stock.edit_meta(Path(meta.path), lambda proto: proto.collection_def.clear())
    with refused("lacks 1 of the 2 variables that this takes: l; a further --ckpt"):
        run(read_meta_graph(meta.path), ["y:0"])


def test_an_initial_value_of_another_shape_or_dtype_is_damage(tmp_path: Path) -> None:
    def build() -> None:
        value, collections = np.array([1, 2], np.float32), [v1.GraphKeys.LOCAL_VARIABLES]
        local = v1.get_variable("l", initializer=value, trainable=False, collections=collections)
        tf.add(local, _variable("w", np.array([10, 20], np.float32)), name="y")
        tf.constant([1.0, 2, 3], name="long")
        tf.constant([1, 2], name="whole")

    meta = saved(tmp_path, build)
    for name, found in (("long", r"float32 \[3\]"), ("whole", r"int32 \[2\]")):

        def edit(proto: MetaGraphDef, name: str = name) -> None:
            entries = proto.collection_def["local_variables"].bytes_list.value
            entry = VariableDef.FromString(entries[0])
            entry.initial_value_name = f"{name}:0"
            entries[0] = entry.SerializeToString()

        stock.edit_meta(Path(meta.path), edit)
        with refused(rf"is damaged: l begins as {found}, and is float32 \[2\]"):
            run(read_meta_graph(meta.path), ["y:0"])


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A generator's variables and a classifier's, whose saver calls them otherwise."""
    with tf.Graph().as_default(), v1.Session() as session:
        g, c = _variable("g/w", np.float32(3)), _variable("c/w", np.float32(4))
        tf.multiply(g, c, name="y")
        both = _variable("both", np.float32(1))
        savers = {
            "g": v1.train.Saver([g, both], name="of_g"),
            "c": v1.train.Saver({"classifier": c, "both": both}, name="of_c"),
        }
        session.run(v1.global_variables_initializer())
        for value, (name, saver) in enumerate(savers.items()):
            session.run(v1.assign(both, value))
            saver.save(session, f"{tmp_path}/{name}.ckpt", 5, latest_filename=f"checkpoint_{name}")
    return tmp_path


def test_a_further_checkpoint_has_what_those_before_it_lack(
    two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For what both have the first counts, which is said."""
    graph, checkpoints = f"{two}/g.ckpt-5.meta", [f"{two}/g.ckpt-5", f"{two}/c.ckpt-5"]
    with refused(r"lacks 1 of the 2 .*: c/w \(saved as classifier\); a further --ckpt has "):
        run(open_model(graph), ["y:0"])
    for order, both in ((1, 0), (-1, 1)):
        caplog.clear()
        meta = open_model(graph, checkpoints=checkpoints[::order])
        assert [value.tolist() for value in run(meta, ["y:0", "both:0"])] == [12, both]
        assert "in several of the checkpoints, of which the first counts: both" in caplog.text
        assert unavailable(meta, graph_variables(meta)) == []
    meta = open_model(graph, checkpoints=checkpoints[:1] * 2)
    assert unavailable(meta, graph_variables(meta)) == ["c/w (saved as classifier) is missing"]


@pytest.fixture
def objects(tmp_path: Path) -> str:
    """A checkpoint of objects, in which two variables have one name."""
    net = tf.Module()
    net.layer, net.one, net.two = tf.Module(), *(tf.Variable(n, name="v") for n in (1.0, 2.0))
    net.layer.w = tf.Variable([1.0, 2.0], name="fc/w")
    optimizer = tf.keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.constant([0.0, 0.0]), net.layer.w)])
    return str(tf.train.Checkpoint(net=net, optimizer=optimizer).write(f"{tmp_path}/objects"))


@KINDS
def test_objects_are_found_by_the_names_of_their_variables(
    objects: str, tmp_path: Path, resource: bool
) -> None:
    """As `Saver.restore` does it; a name of two of them stands for neither."""

    def build() -> None:
        tf.add(_variable("fc/w", np.zeros(2, np.float32), resource=resource), 1.0, name="y")
        _variable("v", np.float32(0), resource=resource)

    saved(tmp_path, build)
    meta = open_model(f"{tmp_path}/m.meta", checkpoints=[objects])
    assert run(meta, ["y:0"])[0].tolist() == [2, 3]
    assert unavailable(meta, graph_variables(meta)) == ["v is missing"]
    names = CheckpointReader(objects).names
    assert names["fc/w"] == "net/layer/w/.ATTRIBUTES/VARIABLE_VALUE"
    assert {"net/one", "net/two"} <= names.keys()
    assert len(names) == len(tf.train.list_variables(objects)) - 1  # What tells of the objects.


def test_a_plain_key_keeps_its_name(tmp_path: Path) -> None:
    """Also where an object's variable is called as it is."""
    graph, key = TrackableObjectGraph(), f"a{VALUE}"
    attribute = graph.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name="w")
    attribute.checkpoint_key = key
    content = np.array(graph.SerializeToString(), object)
    values = {key: np.ones(2), "w": np.zeros(3), "_CHECKPOINTABLE_OBJECT_GRAPH": content}
    write_bundle(str(tmp_path / "m"), values)
    assert CheckpointReader(str(tmp_path / "m")).names == {"w": "w", key: key}


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\x02\x12\xff", b"\x0a\x02\x10\x05", 7])
def test_a_damaged_graph_of_objects_is_one_line(
    content: Any, objects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointReader, "read", lambda *_: np.array(content, object))
    with refused("objects is damaged: _CHECKPOINTABLE_OBJECT_GRAPH: "):
        _ = CheckpointReader(objects).names


def test_a_graph_beside_its_checkpoints_names_the_newest(tmp_path: Path) -> None:
    """As an Estimator leaves them: `graph.pbtxt`, and checkpoints of other names."""
    for step in (9, 10):
        with stock.checkpoint(tmp_path / f"model.ckpt-{step}"):
            _variable("w", np.float32(step))
            graph = v1.get_default_graph().as_graph_def()
    (tmp_path / "graph.pbtxt").write_text(str(graph))
    (tmp_path / "other.meta").write_bytes((tmp_path / "model.ckpt-9.meta").read_bytes())
    for name in ("graph.pbtxt", "other.meta"):
        with refused(f"; the newest beside it is --ckpt={tmp_path}/model.ckpt-10$"):
            run(open_model(f"{tmp_path}/{name}"), ["w:0"])


@pytest.mark.parametrize("folder", ["none", "empty"])
def test_a_saved_model_without_variables_has_an_empty_checkpoint(
    folder: str, tmp_path: Path
) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        v1.saved_model.simple_save(session, f"{tmp_path}/sm", {"x": x}, {"y": x + 1})
    shutil.rmtree(tmp_path / "sm/variables", ignore_errors=True)
    if folder == "empty":
        (tmp_path / "sm/variables").mkdir()
    reader = CheckpointReader(find_variables(f"{tmp_path}/sm"))
    assert (reader.version, reader.shapes, reader.specs, reader.names) == ("none", {}, {}, {})
    (tmp_path / "sm/saved_model.pb").unlink()
    with refused("cannot be read|has no variables"):
        CheckpointReader(f"{tmp_path}/sm/variables/variables")
