"""Paths that TensorFlow takes for patterns, with its own reader and with ours."""

import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpoints.bundle import BundleWriter, VariableSpec, read_bundle
from checkpoints.file_io import readable_prefix
from checkpoints.reader import CheckpointReader
from errors import CheckpointError

v1 = tf.compat.v1

SPECS = {"w": VariableSpec((2,), "float32")}
NAMES = ["a[b]", "a*", "a?", "a\\b", "[!a]", "m[0]/q*[1]"]


def _write(prefix: Path) -> str:
    """As the trainer writes, `w` being [1, 2]."""
    prefix.parent.mkdir(parents=True)
    writer = BundleWriter(SPECS)
    writer.write(str(prefix), {"w": np.array([1, 2], np.float32)})
    writer.close()
    return str(prefix)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where links are made."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, temporary: Path, name: str) -> None:
    prefix = _write(tmp_path / name / "m")
    assert read_bundle(prefix, SPECS)["w"].tolist() == [1, 2]
    reader = CheckpointReader(prefix)
    assert reader.read("w").tolist() == [1, 2]
    del reader
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_base_name_too(tmp_path: Path) -> None:
    prefix = _write(tmp_path / "x" / "m[1]-*")
    assert CheckpointReader(prefix).read("w").tolist() == [1, 2]
    assert read_bundle(prefix, SPECS)["w"].tolist() == [1, 2]


def test_no_other_folder_is_taken_for_it(tmp_path: Path) -> None:
    """TensorFlow would find the other's index, and read the files of neither."""
    _write(tmp_path / "ab" / "m")
    (tmp_path / "a[b]").mkdir()
    with pytest.raises(CheckpointError, match=r"a\[b\]/m has no variables"):
        CheckpointReader(f"{tmp_path}/a[b]/m")


@pytest.mark.parametrize("shard", ["", "-00000-of-00001"])
def test_the_format_v1(tmp_path: Path, shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1.logging, "warning", lambda *_: None)
    prefix = tmp_path / "a[b]" / "m"
    prefix.parent.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, str(prefix))
    prefix.rename(f"{prefix}{shard}")
    assert CheckpointReader(str(prefix)).read("w").tolist() == [1, 2]


def test_an_error_names_the_users_path(tmp_path: Path, temporary: Path) -> None:
    prefix = _write(tmp_path / "a[b]" / "m")
    path = Path(f"{prefix}.data-00000-of-00001")
    path.write_bytes(bytes(8))
    with pytest.raises(CheckpointError) as caught:
        CheckpointReader(prefix).read("w")
    with pytest.raises(CheckpointError) as of_the_bundle:
        read_bundle(prefix, SPECS)
    for message in (str(caught.value), str(of_the_bundle.value)):
        assert str(temporary) not in message
        assert "Checksum does not match" in message


def test_a_plain_path_is_left_alone(tmp_path: Path, temporary: Path) -> None:
    with readable_prefix(f"{tmp_path}/m") as prefix:
        assert prefix == f"{tmp_path}/m"
        assert not list(temporary.iterdir())


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a[b]" / "m")
    monkeypatch.chdir(tmp_path / "a[b]")
    monkeypatch.chdir(tmp_path)
    assert CheckpointReader("a[b]/m").read("w").tolist() == [1, 2]


def test_where_no_links_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(CheckpointError, match=r"takes .* for a pattern; name it without"),
        readable_prefix("gs://bucket/a[b]/m"),
    ):
        pass
    prefix = _write(tmp_path / "a[b]" / "m")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(
        CheckpointError, match=r"a\[b\]/m cannot be read: .* links .* not permitted"
    ):
        CheckpointReader(prefix)
