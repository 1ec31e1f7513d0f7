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
from tests.prediction import foreign
from tools.export import ExportConfig
from tools.export_formats import labels_text, new_version, next_version
from tools.exporting import export

v1 = tf.compat.v1
Array = npt.NDArray[Any]


def _images() -> tf.Tensor:
    return v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")


def _table() -> None:
    """`y` [N], looked up in a table of constants."""
    levels = tf.cast(tf.reduce_mean(_images(), axis=[1, 2, 3]) / 64.0, tf.int64)
    keys, values = tf.range(4, dtype=tf.int64), tf.constant([3.0, 1.0, 4.0, 1.5])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, table._init_op)
    tf.add(table.lookup(levels), foreign.bias(), name="y")


def _other_input() -> None:
    """`y` [N], which takes a second input."""
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


@pytest.mark.parametrize("build", [_table, _other_input])
def test_both_signatures_compute_what_the_checkpoint_does(
    build: Callable[[], object], tmp_path: Path
) -> None:
    _, loaded = _served(tmp_path, build)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    means, others = pixels.mean((1, 2, 3)), dict[str, tf.Tensor]()
    expected = np.array([3.0, 1.0, 4.0, 1.5])[means.astype(int) // 64] + 0.5
    if build is _other_input:
        others, expected = {"factor": tf.constant(2.5)}, (means + 0.5) * 2.5
    images = tf.constant(pixels.astype(np.float32))
    files = tf.constant([_image_file(image) for image in pixels])
    for name, given in (("default", {"x": images}), ("bytes", {"image_bytes": files})):
        found = loaded.signatures[f"serving_{name}"](**given, **others)
        np.testing.assert_allclose(found["y"], expected, rtol=1e-6)


def test_a_fixed_batch_is_kept_and_names_that_are_taken_are_left_to_the_model(
    tmp_path: Path,
) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [4, 8, 8, 3], name="x")
        x = tf.identity(x, name="image_bytes") + foreign.bias()
        tf.identity(tf.reduce_mean(x, axis=[1, 2, 3], name="serving_bytes/y"), "y")

    _, loaded = _served(tmp_path, build)
    signature = loaded.signatures["serving_bytes"]
    assert signature.inputs[0].shape == [4]
    files = tf.constant([_image_file(np.full((8, 8, 3), 7, np.uint8))] * 4)
    np.testing.assert_allclose(signature(image_bytes=files)["y"], [7.5] * 4)


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
