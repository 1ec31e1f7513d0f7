"""tools.diff as a user calls it; differences of arrays held against NumPy, and those of graphs."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from metagraph.meta import MetaGraphFile
from tests.metagraph.made import of_graph
from tests.prediction import stock
from tests.tools.conftest import Tool, document
from tools import differences
from tools.differences import Difference, compare, compare_graphs

v1 = tf.compat.v1


def _save(prefix: Path, values: Mapping[str, Any], **saver_options: Any) -> str:
    with stock.checkpoint(prefix, **saver_options):
        for name, value in values.items():
            v1.get_variable(name, initializer=np.asarray(value), use_resource=False)
    return str(prefix)


def _variables(tool: Tool, *arguments: object) -> dict[str, dict[str, Any]]:
    record = document(tool, "diff", *arguments, "--only=variables")
    return {variable["name"]: variable for variable in record["variables"]}


def test_two_steps_differ_as_numpy_says(cnn_run: Path, tool: Tool) -> None:
    a, b = (f"{cnn_run}/my-model-{step}" for step in (190, 200))
    found = _variables(tool, a, b)
    one, other = tf.train.load_checkpoint(a), tf.train.load_checkpoint(b)
    assert found.keys() == one.get_variable_to_shape_map().keys()
    for name, variable in found.items():
        x, y = (np.asarray(r.get_tensor(name), np.float64) for r in (one, other))
        values = variable["values"]
        assert values["largest"] == np.abs(x - y).max()
        assert values["differing"] == np.count_nonzero(x != y)
        sizes = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-300)
        assert values["relative"] == pytest.approx((np.abs(x - y) / sizes).max(), rel=1e-9)


def test_what_only_one_has_and_what_has_another_shape_or_dtype(tmp_path: Path, tool: Tool) -> None:
    a = _save(tmp_path / "a", {"gone": 1.0, "size": [1.0], "kind": [1, 2], "same": 1.0})
    b = _save(tmp_path / "b", {"new": 1.0, "size": [[1.0]], "kind": [1.0, 2.5], "same": 1.0})
    found = _variables(tool, a, b)
    statuses = {"gone": "only in A", "kind": "dtype", "new": "only in B", "same": "equal"}
    assert {n: found[n]["status"] for n in found} == {**statuses, "size": "shape"}
    assert [*found] == sorted(found)
    assert found["kind"]["values"]["largest"] == 0.5
    assert found["size"]["b"] == {"dtype": "float64", "shape": [1, 1]}
    text = tool("diff", a, b).out
    assert "shape: float64 [1] -> float64 [1, 1]" in text
    assert "dtype: int64 [2] -> float64 [2]" in text


@pytest.mark.parametrize(("tolerance", "code"), [(0, 1), (0.4, 1), (0.5, 0), (9, 0)])
def test_differences_up_to_the_tolerance_count_as_none(
    tolerance: float, code: int, tmp_path: Path, tool: Tool
) -> None:
    a, b = _save(tmp_path / "a", {"w": [1.0, 2.0]}), _save(tmp_path / "b", {"w": [1.5, 2.0]})
    ended = tool("diff", a, b, f"--tolerance={tolerance}", "--only=variables")
    assert ended.code == code
    assert ("taken as equal, of other bytes: w (up to 0.5)" in ended.out) == (code == 0)


def test_nans_are_told_of(tmp_path: Path, tool: Tool) -> None:
    a, b = _save(tmp_path / "a", {"w": [np.nan, 1]}), _save(tmp_path / "b", {"w": [np.nan, 1]})
    c = _save(tmp_path / "c", {"w": [np.nan, np.nan]})
    same = tool("diff", a, b, "--only=variables")
    assert same.code == 0
    assert "NaN at the same places in both, taken as equal: w" in same.out
    values = _variables(tool, a, c, "--tolerance=1e9")["w"]["values"]
    assert (values["largest"], values["equal_nans"], values["differing"]) == ("Infinity", 1, 1)


def test_every_kind_of_value_in_every_format(tmp_path: Path, tool: Tool) -> None:
    half = np.asarray([1.5, 2.5], np.float16)
    kinds = {"text": ["a", "b"], "flag": [True, False], "half": half, "number": [2**62, 0]}
    kinds |= {"brain": half.astype(tf.bfloat16.as_numpy_dtype)}
    a = _save(tmp_path / "a", kinds)
    assert tool("diff", a, _save(tmp_path / "b", kinds)).code == 0
    others = {name: np.asarray(value)[::-1] for name, value in kinds.items()}
    found = _variables(tool, a, _save(tmp_path / "b", others))
    largest = {"text": None, "flag": 1, "half": 1.0, "brain": 1.0, "number": 2**62}
    assert {name: v["values"]["largest"] for name, v in found.items()} == largest
    assert all(variable["values"]["differing"] == 2 for variable in found.values())
    plain = {"w": np.arange(6.0).reshape(2, 3), "b": [1.0]}
    a, version = _save(tmp_path / "a", plain), v1.train.SaverDef.V1
    formats = [{"sharded": True}, {"write_version": version}]
    for number, options in enumerate([*formats, formats[0] | formats[1]]):
        other = _save(tmp_path / str(number), plain, **options)
        assert {v["status"] for v in _variables(tool, a, other).values()} == {"equal"}


def test_a_saved_model_has_variables_and_a_graph(tmp_path: Path, tool: Tool) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, f"{tmp_path}/a")
    module.v.assign([1.0, 2.5])
    tf.saved_model.save(module, f"{tmp_path}/b")
    for same in ("a", "a/saved_model.pb"):
        ended = tool("diff", tmp_path / "a", tmp_path / same)
        assert (ended.code, ended.out.count("equal")) == (0, 2)
    found = _variables(tool, tmp_path / "a", tmp_path / "b")
    assert found["v/.ATTRIBUTES/VARIABLE_VALUE"]["values"]["largest"] == 0.5


def test_a_saved_model_without_variables_is_none_the_worse(tmp_path: Path, tool: Tool) -> None:
    """As tf.Transform wrote them."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        v1.saved_model.simple_save(session, f"{tmp_path}/sm", {"x": x}, {"y": x + 1})
    shutil.rmtree(tmp_path / "sm/variables", ignore_errors=True)
    for name in ("diff", "verify", "inspect_checkpoint"):
        arguments = [tmp_path / "sm"] * (2 if name == "diff" else 1)
        assert tool(name, *arguments).code == 0
    assert document(tool, "inspect_checkpoint", tmp_path / "sm")["tensors"] == []
    assert document(tool, "verify", tmp_path / "sm")["checkpoints"][0]["tensors"] == 0


def test_checkpoints_of_public_projects(third_party: Path, linear_run: Path, tool: Tool) -> None:
    for meta in sorted(third_party.rglob("*.meta")):
        assert tool("diff", meta, meta.parent).code == 0, meta
        record = document(tool, "diff", linear_run, meta)
        assert record["differ"]
        assert record["variables"]
        assert record["graph"]["nodes"]["added"]


# Differences of arrays, held against NumPy and plain Python.


NAN, INF = np.nan, np.inf
QINT8 = np.dtype([("qint8", np.int8)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_floats(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 5)).astype(dtype)
    found = compare(a, b, 0.5)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    distance = np.abs(wide_a - wide_b)
    assert found.largest == distance.max()
    relative = (distance / np.maximum(np.abs(wide_a), np.abs(wide_b))).max()
    assert found.relative == pytest.approx(relative, rel=1e-12)
    assert found.differing == np.count_nonzero(distance > 0.5)
    assert not found.equal_bytes
    assert compare(a, a.copy()) == Difference(True, 0, 0, 0, 0)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_integers_are_exact_to_their_limits(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    a = np.array([limits.min, 0, limits.max, 3], dtype)
    b = np.array([limits.max, 0, limits.min, 5], dtype)
    found = compare(a, b)
    assert found.largest == int(limits.max) - int(limits.min)
    assert (found.differing, found.equal_bytes) == (3, False)
    assert compare(a, b, 2.0).differing == 2


@pytest.mark.parametrize(
    ("dtype", "a", "b", "expected"),
    [
        (bool, [True, False, True], [True, True, False], (False, 2, 1, 1.0, 0)),
        (object, [b"a", b"b"], [b"a", b"c"], (False, 1, None, None, 0)),  # They have no distance.
        (object, b"a", b"a", (True, 0, None, None, 0)),
        (ml_dtypes.int4, [1, 7], [1, 2], (False, 1, 5, 5 / 7, 0)),
        (ml_dtypes.uint4, [1, 7], [1, 2], (False, 1, 5, 5 / 7, 0)),
        (QINT8, [(1,), (-128,)], [(1,), (127,)], (False, 1, 255, 255 / 128, 0)),
        (np.complex64, [3 + 4j], [0], (False, 1, 5.0, 1.0, 0)),
        (np.float32, [NAN, NAN, 1], [NAN, NAN, 1], (True, 0, 0.0, 0.0, 2)),
        (np.float32, [NAN, NAN, 1], [NAN, 2, 1], (False, 1, INF, INF, 1)),
        (np.float64, [INF], [INF], (True, 0, 0.0, 0.0, 0)),
        (np.float64, [INF], [-INF], (False, 1, INF, INF, 0)),
        (np.float64, [INF], [1.0], (False, 1, INF, INF, 0)),
        (np.float64, [0.0], [-0.0], (False, 0, 0.0, 0.0, 0)),
        (np.float64, [1.7e308], [-1.7e308], (False, 1, INF, 2.0, 0)),
        (np.float64, [[]], [[]], (True, 0, 0, 0, 0)),
        (np.int64, [2**60], [2**60 + 1], (False, 1, 1, 2.0**-60, 0)),  # Floats cannot tell.
    ],
)
def test_kinds_and_special_values(dtype: Any, a: Any, b: Any, expected: tuple[Any, ...]) -> None:
    assert compare(np.array(a, dtype), np.array(b, dtype)) == expected


def test_other_dtypes_are_compared_by_value() -> None:
    a = np.array([1.5, 2.0], np.float32)
    assert compare(a, a.astype(np.float16)) == Difference(False, 0, 0.0, 0.0, 0)
    assert compare(a, np.array([1, 2])).largest == 0.5


def test_other_bytes_of_a_nan_are_told() -> None:
    a, b = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert compare(a, b) == Difference(False, 0, 0.0, 0.0, 1)


def test_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000))
    a[::7] = b[::7] = np.nan
    whole = compare(a, b, 1.0)
    monkeypatch.setattr(differences, "_PIECE", 17)
    assert compare(a, b, 1.0) == whole
    assert whole.equal_nans == 143


# What is told of two graphs, each made by plain TensorFlow.


ALL = re.compile("")


def _model() -> None:
    x = v1.placeholder(tf.float32, [None, 2], name="x")
    scale = tf.constant([1.0, 2.0], name="scale")
    tf.nn.softmax(tf.multiply(x, scale, name="scaled"), name="y")


def _differences(a: MetaGraphFile, b: MetaGraphFile, pattern: str = "") -> dict[str, Any]:
    """What differs, of each kind of part that has something."""
    found = compare_graphs(a, b, re.compile(pattern))
    return {kind: told for kind, told in found.items() if any(told.values())}


def _changes(a: MetaGraphFile, b: MetaGraphFile) -> dict[str, list[str]]:
    nodes = compare_graphs(a, b, ALL)["nodes"]
    assert nodes["added"] == nodes["removed"] == []
    return {node["name"]: node["changes"] for node in nodes["changed"]}


def test_an_attribute_left_out_is_its_default() -> None:
    def convolve() -> None:
        x = v1.placeholder(tf.float32, [1, 4, 4, 1])
        tf.nn.conv2d(x, tf.zeros([2, 2, 1, 1]), strides=1, padding="SAME")

    whole, stripped = of_graph(convolve), of_graph(convolve, strip_default_attrs=True)
    assert stripped.proto.graph_def.ByteSize() < whole.proto.graph_def.ByteSize()
    assert not _differences(whole, stripped)


def test_added_and_removed() -> None:
    def more() -> None:
        _model()
        tf.identity(v1.get_default_graph().get_tensor_by_name("y:0"), name="z")

    a, b = of_graph(_model), of_graph(more)
    assert _differences(a, b) == {"nodes": {"added": ["z"], "removed": [], "changed": []}}
    assert _differences(b, a) == {"nodes": {"added": [], "removed": ["z"], "changed": []}}
    assert not _differences(a, b, "^x")


def test_what_changed_of_a_node_is_told() -> None:
    b = of_graph(_model)
    b.nodes["y"].input[0] = "x"
    b.nodes["y"].input.append("^scale")
    b.nodes["scaled"].op = "Add"
    b.nodes["x"].attr["shape"].shape.dim[1].size = 3
    b.nodes["x"].device = "/cpu:0"
    value = tf.make_tensor_proto(np.array([1.0, 5.0], np.float32))
    b.nodes["scale"].attr["value"].tensor.CopyFrom(value)
    assert _changes(of_graph(_model), b) == {
        "x": ["device: none -> /cpu:0", "attribute shape: [?, 2] -> [?, 3]"],
        "scale": ["attribute value: float32 [2] = 1.0, 2.0 -> float32 [2] = 1.0, 5.0"],
        "scaled": ["operation: Mul -> Add"],
        "y": ["input 0: scaled -> x", "waits for scale"],
    }


def test_two_ways_to_write_one_constant_are_one() -> None:
    b = of_graph(_model)
    tensor = b.nodes["scale"].attr["value"].tensor
    tensor.tensor_content = b""
    tensor.float_val.extend([1.0, 2.0])
    assert not _differences(of_graph(_model), b)


@pytest.mark.parametrize(
    ("sizes", "shape"), [([2**40], "[1099511627776]"), ([-(2**31), 2**31, 2**62 + 1], "[?, ")]
)
def test_a_constant_of_a_hostile_size_is_not_unpacked(sizes: list[int], shape: str) -> None:
    metas = [of_graph(_model), of_graph(_model)]
    for value, meta in enumerate(metas):
        tensor = meta.nodes["scale"].attr["value"].tensor
        tensor.Clear()
        tensor.dtype = tf.float32.as_datatype_enum
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.append(value)
    ((change,),) = _changes(*metas).values()
    assert change.startswith(f"attribute value: float32 {shape}")


def _function(value: float) -> MetaGraphFile:
    called = tf.function(lambda x: tf.multiply(x, value, name="product"), autograph=False)
    meta = of_graph(lambda: called(v1.placeholder(tf.float32, [])))
    (function,) = meta.proto.graph_def.library.function
    function.signature.name = "doubled"
    for node in meta.nodes.values():
        if "f" in node.attr:
            node.attr["f"].func.name = "doubled"
    return meta


def test_functions() -> None:
    a, b = _function(2.0), _function(3.0)
    (changed,) = compare_graphs(a, b, ALL)["functions"]["changed"]
    assert changed["name"] == "doubled"
    (change,) = changed["changes"]
    assert change.endswith("attribute value: float32 [] = 2.0 -> float32 [] = 3.0")
    found = compare_graphs(of_graph(_model), a, ALL)["functions"]
    assert (found["added"], found["removed"]) == (["doubled"], [])


def _signed(output: str, *labels: bytes) -> MetaGraphFile:
    meta = of_graph(_model)
    meta.proto.signature_def["serve"].inputs["x"].name = "x:0"
    meta.proto.signature_def["serve"].outputs[output].name = "y:0"
    meta.proto.collection_def["labels"].bytes_list.value.extend(labels)
    return meta


def test_signatures_and_collections() -> None:
    a, one, other = of_graph(_model), _signed("y", b"cat"), _signed("z", b"cat", b"dog")
    found = compare_graphs(one, other, ALL)
    changes = ["output y removed", "output z added"]
    assert found["signatures"]["changed"] == [{"name": "serve", "changes": changes}]
    labels = {"name": "labels", "changes": ["1 -> 2 entries"]}
    assert found["collections"]["changed"] == [labels]
    assert compare_graphs(a, one, ALL)["signatures"]["added"] == ["serve"]
    assert compare_graphs(one, a, ALL)["collections"]["removed"] == ["labels"]
