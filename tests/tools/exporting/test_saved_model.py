"""SavedModels of graphs with more than layers, run by plain TensorFlow; and their versions."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from errors import ToolError
from tests.prediction import foreign, stock
from tools.export import ExportConfig
from tools.export_saved_model import labels_text, new_version, next_version
from tools.exporting import export

v1 = tf.compat.v1
Array = npt.NDArray[Any]


def _images() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")


def _loop() -> None:
    """`y` [N], from a loop of TensorFlow 1 with constants of its own inside."""
    x, before = _images(), tf.compat.v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        total = tf.reduce_mean(x, axis=[1, 2, 3]) + foreign.bias()
        _, y = tf.while_loop(
            lambda i, _: i < 3, lambda i, s: (i + 1, s * 1.5 + tf.cast(i, tf.float32)), (0, total)
        )
    finally:
        if before:
            v1.enable_control_flow_v2()
    tf.identity(y, name="y")


def _conditional() -> None:
    """`y` [N], from a function of the graph's library that is called where the mean is large."""
    total = tf.reduce_mean(_images(), axis=[1, 2, 3]) + foreign.bias()
    y = tf.cond(tf.reduce_sum(total) > 1.0, lambda: total * 2.0, lambda: total - 1.0)
    tf.identity(y, name="y")


def _table() -> None:
    """`y` [N], looked up in a table of constants."""
    levels = tf.cast(tf.reduce_mean(_images(), axis=[1, 2, 3]) / 64.0, tf.int64)
    keys, values = tf.range(4, dtype=tf.int64), tf.constant([3.0, 1.0, 4.0, 1.5])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, table._init_op)
    tf.add(table.lookup(levels), foreign.bias(), name="y")


def _other_input() -> None:
    """`y` [N], which takes a second input and has a constant for an output beside it."""
    factor = v1.placeholder(tf.float32, [], name="factor")
    tf.multiply(tf.reduce_mean(_images(), axis=[1, 2, 3]) + foreign.bias(), factor, name="y")


def _image_file(pixels: Array) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _served(folder: Path, build: Callable[[], object]) -> tuple[str, Any]:
    """The model's `.meta`, and its SavedModel as TensorFlow loads it."""
    meta = foreign.save(folder, build)
    record = export(
        ExportConfig(meta, to="saved_model", output=str(folder / "served"), outputs=("y",))
    )
    return meta, tf.saved_model.load(record["path"])


@pytest.mark.parametrize("build", [_loop, _conditional, _table, _other_input])
def test_both_signatures_compute_what_the_checkpoint_does(
    build: Callable[[], object], tmp_path: Path
) -> None:
    meta, loaded = _served(tmp_path, build)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    others = {"factor": np.float32(2.5)} if build is _other_input else {}
    feeds = {"x:0": pixels.astype(np.float32)} | {f"{k}:0": v for k, v in others.items()}
    if build is _table:
        expected = np.array([3.0, 1.0, 4.0, 1.5])[pixels.mean((1, 2, 3)).astype(int) // 64] + 0.5
    else:
        (expected,) = stock.run(meta, ["y:0"], feeds)
    given = {key: tf.constant(value) for key, value in others.items()}
    default = loaded.signatures["serving_default"](x=tf.constant(feeds["x:0"]), **given)
    files = tf.constant([_image_file(image) for image in pixels])
    on_files = loaded.signatures["serving_bytes"](image_bytes=files, **given)
    np.testing.assert_allclose(default["y"], expected, rtol=1e-6)
    np.testing.assert_allclose(on_files["y"], expected, rtol=1e-6)


def test_an_image_model_of_a_fixed_batch_keeps_it(tmp_path: Path) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [4, 8, 8, 1], name="x")
        tf.add(tf.reduce_mean(x, axis=[1, 2, 3]), foreign.bias(), name="y")

    _, loaded = _served(tmp_path, build)
    (files,) = loaded.signatures["serving_bytes"].inputs
    assert files.shape == [4]


def test_names_that_are_taken_are_left_to_the_model(tmp_path: Path) -> None:
    def build() -> None:
        x = tf.identity(_images(), name="image_bytes")
        tf.reduce_mean(x + foreign.bias(), axis=[1, 2, 3], name="serving_bytes/model/y")
        tf.identity(v1.get_default_graph().get_tensor_by_name("serving_bytes/model/y:0"), "y")

    _, loaded = _served(tmp_path, build)
    files = tf.constant([_image_file(np.full((8, 8, 3), 7, np.uint8))])
    found = loaded.signatures["serving_bytes"](image_bytes=files)
    np.testing.assert_allclose(found["y"], [7.5])


def test_a_class_name_stays_on_its_line_of_the_labels() -> None:
    names = ["Vögel", "bird\nof prey", "a\r\nb", "", "c"]
    assert labels_text(names) == "Vögel\nbird of prey\na b\n\nc\n".encode()


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], 1),
        (["1"], 2),
        (["3", "10"], 11),
        (["7.f0.being-written", "x1", ".2"], 1),
        (["0"], 1),
    ],
)
def test_the_next_version(tmp_path: Path, there: list[str], expected: int) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    assert next_version(str(tmp_path)) == expected
    assert next_version(str(tmp_path / "new")) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="is a file"):
        next_version(str(tmp_path / "file"))


def _write(path: Path, text: str, error: Exception | None = None) -> None:
    with new_version(str(path)) as folder:
        (Path(folder) / "file").write_text(text)
        assert not path.exists()
        if error is not None:
            raise error


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new"):
        with pytest.raises(ToolError, match="failed"):
            _write(folder / "1", "ours", ToolError("failed"))
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(tmp_path / "there") == []


def test_of_two_at_once_the_first_stays(tmp_path: Path) -> None:
    with pytest.raises(tf.errors.OpError), new_version(str(tmp_path / "1")):
        _write(tmp_path / "1", "theirs")
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "file").read_text() == "theirs"
