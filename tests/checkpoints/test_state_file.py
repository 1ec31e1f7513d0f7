"""The state file as a hint, against what TensorFlow writes and what others have left."""

from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints.folder import named_checkpoint


def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    for name in ("m-7", "a b.ckpt--1", "gr\u00fcn", ""):
        tf.compat.v1.train.update_checkpoint_state(
            str(tmp_path), f"/elsewhere/{name}", all_model_checkpoint_paths=["/elsewhere/m-6"]
        )
        assert named_checkpoint(f"{tmp_path}/checkpoint") == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r'model_checkpoint_path: "C:\\work\\model.ckpt-3"', "model.ckpt-3"),
        ('all_model_checkpoint_paths: "a"\nmodel_checkpoint_path: "../b"\n', "b"),
        ('all_model_checkpoint_paths: "a"\n', None),
        ("no such thing", None),
        (r'model_checkpoint_path: "\777\x"', None),
        ("", None),
        ("\x00\x80" * 100, None),
    ],
)
def test_what_others_have_left(tmp_path: Path, text: str, name: str | None) -> None:
    (tmp_path / "checkpoint").write_text(text)
    assert named_checkpoint(f"{tmp_path}/checkpoint") == name


def test_a_folder_of_that_name_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert named_checkpoint(f"{tmp_path}/checkpoint") is None
    assert named_checkpoint(f"{tmp_path}/nowhere") is None
