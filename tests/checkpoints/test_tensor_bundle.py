"""Variables on disk, against TensorFlow's own reader and writer."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from checkpoints.bundle import BundleWriter, VariableSpec, read_bundle
from checkpoints.reader import CheckpointReader, restore_newest
from errors import CheckpointError

v1 = tf.compat.v1
Values = dict[str, npt.NDArray[Any]]
Specs = dict[str, VariableSpec]


@pytest.fixture
def prefix(tmp_path: Path, values: Values, specs: Specs) -> str:
    """The prefix of a bundle that holds `values`."""
    path = str(tmp_path / "b")
    writer = BundleWriter(specs)
    writer.write(path, values)
    writer.close()
    return path


def test_tensorflow_reads_what_is_written(prefix: str, values: Values) -> None:
    reader = tf.train.load_checkpoint(prefix)
    assert set(reader.get_variable_to_shape_map()) == set(values)
    for name, value in values.items():
        found = reader.get_tensor(name)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_a_stock_savers_checkpoint_is_read(values: Values, specs: Specs, tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in values.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        stock = v1.train.Saver().save(session, str(tmp_path / "stock"), write_meta_graph=False)
    found = read_bundle(stock, specs)
    assert all(found[name].tobytes() == values[name].tobytes() for name in values)


def test_a_data_file_cut_short_without_a_manifest_is_stepped_over(
    values: Values, specs: Specs, tmp_path: Path
) -> None:
    """By its reader, whose errors are of many kinds, wherever the cut is."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in values.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        for step in (7, 8):
            v1.train.Saver().save(session, f"{tmp_path}/my-model", global_step=step)
    data = tmp_path / "my-model-8.data-00000-of-00001"
    content = data.read_bytes()
    for size in range(len(content)):
        data.write_bytes(content[:size])
        found = restore_newest(str(tmp_path), specs)
        assert found is not None
        assert found.step == 7
        with pytest.raises(CheckpointError):
            _read_all(CheckpointReader(f"{tmp_path}/my-model-8"))


def _read_all(reader: CheckpointReader) -> None:
    """As every other reader does."""
    for key in reader.shapes:
        reader.read(key)


def test_reading_gives_back_what_was_written(prefix: str, values: Values, specs: Specs) -> None:
    found = read_bundle(prefix, specs)
    assert found.keys() == values.keys()
    assert all(found[name].tobytes() == values[name].tobytes() for name in values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer/w": None}, "layer/w is not in this model"),
        ({"new": VariableSpec((1,), "float32")}, "new is missing"),
        (
            {"layer/b": VariableSpec((3,), "float32")},
            r"layer/b is float32 \[2\], this model has float32 \[3\]",
        ),
        (
            {"global_step": VariableSpec((), "int32")},
            r"global_step is int64 \[\], this model has int32 \[\]",
        ),
    ],
)
def test_each_difference_is_named(
    prefix: str, specs: Specs, change: dict[str, VariableSpec | None], message: str
) -> None:
    expected = {name: spec for name, spec in (specs | change).items() if spec}
    with pytest.raises(CheckpointError, match=message):
        read_bundle(prefix, expected)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_missing_file_is_an_error(prefix: str, specs: Specs, suffix: str) -> None:
    tf.io.gfile.remove(prefix + suffix)
    with pytest.raises(CheckpointError, match="unreadable"):
        read_bundle(prefix, specs)


def test_a_flipped_bit_is_an_error(prefix: str, specs: Specs) -> None:
    path = prefix + ".data-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(3)
        file.write(b"\x55")
    with pytest.raises(CheckpointError, match="unreadable"):
        read_bundle(prefix, specs)
