"""Weights that are written for other frameworks, and what others compute with them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from cli.terminal import EXIT_USAGE
from tests.conftest import PROJECT, run_python
from tests.prediction import stock
from tests.prediction.conftest import outputs
from tests.tools.conftest import Tool, document, refused

v1 = tf.compat.v1
Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def _load(path: str) -> dict[str, Array]:
    """What the format's own reader gives."""
    if path.endswith(".npz"):
        with np.load(path) as found:
            return dict(found)
    from safetensors.numpy import load_file

    return dict(load_file(path))


def _export(
    tool: Tool, meta: object, folder: Path, *flags: str, to: str = "npz"
) -> dict[str, Array]:
    output = f"{folder}/out.{to}"
    record = document(
        tool, "export", meta, f"--to={to}", f"--output={output}", *flags, "--overwrite"
    )
    assert record["bytes"] == Path(output).stat().st_size
    found = _load(output)
    named = {one["name"]: [one["dtype"], one["shape"]] for one in record["variables"]}
    metadata = found.pop("__metadata__", None)
    assert (metadata is None) == ("--layout=torch" not in flags or to != "npz")
    assert {name: [v.dtype.name, [*v.shape]] for name, v in found.items()} == named
    return found


@pytest.mark.parametrize("to", ["safetensors", "npz"])
def test_all_variables_but_the_optimizers(
    tool: Tool, cnn_run: Path, tmp_path: Path, to: str
) -> None:
    reader = tf.train.load_checkpoint(str(cnn_run))
    own = {
        n for n in reader.get_variable_to_shape_map() if re.fullmatch(r"global_step|\w+/[wb]", n)
    }
    found = _export(tool, cnn_run, tmp_path, to=to)
    assert {*found} == own
    for name, value in found.items():
        assert value.tobytes() == np.asarray(reader.get_tensor(name)).tobytes()


def test_what_is_asked_for_under_other_names(tool: Tool, cnn_run: Path, tmp_path: Path) -> None:
    flags = ["--only=^fc", "--only=power", "--nowithout_slots", "--rename=fc1/w=hidden.weight"]
    found = _export(tool, cnn_run, tmp_path, *flags, "--rename=fc2/=out/")
    assert {"hidden.weight", "fc1/b", "out/w", "out/w/Adam", "beta1_power"} <= {*found}
    assert not [name for name in found if name.startswith("conv")]


def test_every_dtype_and_shape_keeps_its_bytes(tool: Tool, tmp_path: Path) -> None:
    dtypes = "bfloat16 bool complex64 float16 float64 int8 int16 int32 uint8 uint16 uint32 uint64"
    values = {name: RNG.integers(0, 2, (2, 3)) for name in dtypes.split()}
    with stock.checkpoint(tmp_path / "m"):
        for name, value in values.items():
            v1.get_variable(name, initializer=tf.cast(value, name), use_resource=False)
        v1.get_variable("none", initializer=np.zeros((0, 4), np.float32))
        v1.get_variable("file", initializer=np.float32(3))
        v1.get_variable("text", initializer=["a"], use_resource=False)
    args = (tmp_path / "m", f"--output={tmp_path}/a.npz", "--to=npz")
    assert "bfloat16 is bfloat16 [2, 3], which a file of --to=npz" in refused(tool, "export", *args)
    assert "text is string [1]" in refused(tool, "export", *args, "--only=^[^b]")
    output = f"{tmp_path}/a.safetensors"
    asked = (tmp_path / "m", "--only=^[^t]", "--to=safetensors", f"--output={output}")
    record = document(tool, "export", *asked)
    from safetensors import deserialize

    found = dict(deserialize(Path(output).read_bytes()))
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert {*found} == {*values, "none", "file"} == {one["name"] for one in record["variables"]}
    for name, raw in found.items():
        assert bytes(raw["data"]) == np.asarray(reader.get_tensor(name)).tobytes()
    kept = _export(tool, tmp_path / "m", tmp_path, "--only=^[^bt]|bool")
    assert kept["file"].shape == ()
    assert kept["none"].shape == (0, 4)


def test_a_file_that_is_read_back_otherwise_is_not_kept(
    tool: Tool, linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[..., None] = np.lib.format.write_array
    monkeypatch.setattr(
        np.lib.format, "write_array", lambda f, value, **kw: write(f, value + 1, **kw)
    )
    line = refused(tool, "export", linear_run, "--to=npz", f"--output={tmp_path}/a.npz")
    assert line == "b is read back as another than it was; nothing is kept"
    assert [*tmp_path.iterdir()] == []


# Moving averages.


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = w x + b, whose w has a moving average, which is 5."""
    prefix = tmp_path_factory.mktemp("averaged") / "m"
    with stock.checkpoint(prefix):
        x = v1.placeholder(tf.float32, [None], "x")
        w = v1.get_variable("w", initializer=np.array([2], np.float32), use_resource=False)
        b = v1.get_variable("b", initializer=np.array([1], np.float32))
        shadow = "w/ExponentialMovingAverage"
        v1.get_variable(shadow, initializer=np.array([5], np.float32), trainable=False)
        v1.add_to_collection("predict", tf.add(w * x, b, name="y"))
    return Path(f"{prefix}.meta")


def test_moving_averages_predict_freeze_and_are_exported(
    tool: Tool, averaged: Path, tmp_path: Path
) -> None:
    feed = ["x=[3.0]"]
    assert outputs(tmp_path, str(averaged), "y", feed=feed) == [[7]]
    assert outputs(tmp_path, str(averaged), "y", feed=feed, weights="ema") == [[16]]
    document(tool, "freeze", averaged, "--weights=ema", f"--output={tmp_path}/a.pb")
    assert outputs(tmp_path, f"{tmp_path}/a.pb", "y", feed=feed) == [[16]]
    shape = "--shape=x=?"
    document(
        tool, "export", averaged, "--weights=ema", "--to=onnx", f"--output={tmp_path}/a.onnx", shape
    )
    assert outputs(tmp_path, f"{tmp_path}/a.onnx", "y", feed=feed) == [[16]]
    found = _export(tool, averaged, tmp_path, "--weights=ema")
    assert {name: value.item() for name, value in found.items()} == {"w": 5, "b": 1}
    assert len(_export(tool, averaged, tmp_path)) == 3


# As PyTorch has them: the operations of ONNX take their weights as those of PyTorch do.


def _run_onnx(op: str, x: Array, w: Array, **attributes: Any) -> Array:
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, None), value("w", TensorProto.FLOAT, None)],
        [value("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x, "w": w})[0])


def _deconv(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d_transpose(x, w, [2, 10, 10, 5], 2, "VALID")


Layer = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
LAYERS: dict[str, tuple[list[int], list[int], Layer, str, dict[str, Any]]] = {
    "HWIO -> OIHW": (
        [2, 6, 6, 3], [3, 3, 3, 5], lambda x, w: tf.nn.conv2d(x, w, 1, "VALID"), "Conv", {},
    ),
    "KIO -> OIK": ([2, 6, 3], [3, 3, 5], lambda x, w: tf.nn.conv1d(x, w, 1, "VALID"), "Conv", {}),
    "DHWIO -> OIDHW": (
        [2, 5, 6, 7, 3], [2, 3, 3, 3, 5],
        lambda x, w: tf.nn.conv3d(x, w, [1] * 5, "VALID"), "Conv", {},
    ),
    "HWIM -> (IM)1HW": (
        [2, 6, 6, 3], [3, 3, 3, 2],
        lambda x, w: tf.nn.depthwise_conv2d(x, w, [1] * 4, "VALID"), "Conv", {"group": 3},
    ),
    "HWOI -> IOHW": ([2, 4, 4, 3], [4, 4, 5, 3], _deconv, "ConvTranspose", {"strides": [2, 2]}),
    "IO -> OI": ([4, 3], [3, 5], tf.matmul, "Gemm", {"transB": 1}),
    "as it is": (
        [4, 3], [5, 3], lambda x, w: tf.matmul(x, w, transpose_b=True), "Gemm", {"transB": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYERS)
@pytest.mark.parametrize("use_resource", [False, True])
def test_pytorch_computes_the_same(
    tool: Tool, tmp_path: Path, layout: str, use_resource: bool
) -> None:
    shape, weights, layer, op, attributes = LAYERS[layout]
    x = RNG.random(shape, np.float32)
    with stock.checkpoint(tmp_path / "m"):
        fed = v1.placeholder(tf.float32, shape, "x")
        initial = RNG.random(weights, np.float32)
        w = v1.get_variable("w", initializer=initial, use_resource=use_resource)
        y = tf.identity(layer(fed, w), "y")
        v1.add_to_collection("predict", y)
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(y))
    (expected,) = stock.run(tmp_path / "m.meta", ["y:0"], {"x:0": x})
    found = _export(tool, tmp_path / "m", tmp_path, "--layout=torch")
    found |= _export(tool, tmp_path / "m", tmp_path, "--layout=torch", to="safetensors")
    with np.load(tmp_path / "out.npz") as file:
        assert json.loads(json.loads(str(file["__metadata__"]))["layout"]) == {"w": layout}
    last = len(shape) - 1
    ours = _run_onnx(op, np.moveaxis(x, last, 1) if last > 1 else x, found["w"], **attributes)
    ours = np.moveaxis(ours, 1, last) if last > 1 else ours
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def _mixed() -> None:
    """Variables that lie in ways that can be told, or not."""
    ids = v1.placeholder(tf.int32, [None], "ids")
    table = v1.get_variable("table", [7, 3])
    scale = v1.get_variable("scale", [3, 4])
    both = v1.get_variable("both", [4, 4])
    v1.get_variable("away", [2, 2])
    rows = tf.matmul(tf.gather(table, ids), scale * 2.0)
    y = tf.matmul(tf.matmul(rows, both), both, transpose_b=True)
    v1.add_to_collection("predict", tf.identity(y, "y"))


def test_what_the_graph_does_not_tell_is_refused(tool: Tool, tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _mixed()
    args = ("export", tmp_path / "m", "--layout=torch", "--to=npz", f"--output={tmp_path}/a.npz")
    line = refused(tool, *args)
    assert "away [2, 2] (taken by no operation of the prediction), both [4, 4] (taken by" in line
    assert "scale [3, 4] (taken by Mul); leave them out with --only" in line
    assert not Path(tmp_path / "a.npz").exists()
    found = _export(tool, tmp_path / "m", tmp_path, "--layout=torch", "--only=table")
    assert found["table"].shape == (7, 3)


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--to=npz", "--output=a.zip"], EXIT_USAGE, "with --to=npz, --output must end in .npz"),
        (["--to=onnx", "--only=w", "--output=a.onnx"], EXIT_USAGE, "--only needs --to=safetensors"),
        (["--to=npz", "--fetch=y", "--output=a.npz"], EXIT_USAGE, "--fetch needs --to=saved_model"),
        (["--to=npz", "--only=z", "--output=a.npz"], 1, "--only=z is found in no name of the 3"),
        (["--to=npz", "--weights=ema", "--output=a.npz"], 1, "has no moving averages"),
        (["--to=npz", "--ckpt=none", "--output=a.npz"], 1, "--ckpt=none: there is no none.index"),
        (["--to=npz", "--rename=w=b", "--output=a.npz"], 1, "b and w would both be called b"),
    ],
)
def test_one_line(tool: Tool, linear_run: Path, flags: list[str], code: int, line: str) -> None:
    assert line in refused(tool, "export", linear_run, *flags, code=code)


def test_damage_is_one_line(tool: Tool, run: Path, tmp_path: Path) -> None:
    data = run / "my-model-300.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    args = ("export", run / "my-model-300", "--to=npz", f"--output={tmp_path}/a.npz")
    assert "my-model-300" in refused(tool, *args)
    assert not Path(tmp_path / "a.npz").exists()


# What the documents show.


def test_jax_computes_what_predict_does(tool: Tool, cnn_run: Path, tmp_path: Path) -> None:
    """In a process of its own, as JAX forbids a process that has loaded it to fork."""
    pytest.importorskip("jaxlib")
    images = RNG.random((5, 32, 32, 3), np.float32)
    np.save(tmp_path / "x.npy", images)
    (expected,) = outputs(tmp_path, str(cnn_run), "fc2/add", input=[f"{tmp_path}/x.npy"])
    _export(tool, cnn_run, tmp_path, to="safetensors")
    (tmp_path / "out.safetensors").rename(tmp_path / "model1.safetensors")
    page = (PROJECT / "docs/weights.md").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = f"import numpy\nimages = numpy.load('x.npy')\n{shown}\nnumpy.save('y.npy', logits)"
    run_python("-c", program, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-5)
