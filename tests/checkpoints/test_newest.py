"""Reading beside a process that trains."""

from pathlib import Path

import pytest

from checkpoints.errors import CheckpointError
from checkpoints.newest import newest_meta_graph, say_if_gone


def _checkpoint(path: Path, step: int, manifest: str = ".manifest") -> None:
    for suffix in (".data-00000-of-00001", ".index", ".meta", manifest):
        (path / f"my-model-{step}{suffix}").touch()


def test_the_newest_is_one_that_is_whole(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 9)
    _checkpoint(tmp_path, 10)
    _checkpoint(tmp_path, 11, manifest=".manifest.tmp")
    assert newest_meta_graph(str(tmp_path)) == str(tmp_path / "my-model-10.meta")


def test_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoint my-model-<step>"):
        newest_meta_graph(str(tmp_path))


def test_an_error_tells_when_the_checkpoint_has_gone(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 10)
    gone = say_if_gone(CheckpointError("odd"), str(tmp_path / "my-model-5.meta"))
    assert "my-model-5.meta is not there, or was deleted" in str(gone)
    assert "the newest is my-model-10.meta" in str(gone)


@pytest.mark.parametrize("meta", ["my-model-10.meta", "other.meta", "nowhere/my-model-1.meta"])
def test_other_errors_stay(tmp_path: Path, meta: str) -> None:
    _checkpoint(tmp_path, 10)
    error = CheckpointError("odd")
    assert say_if_gone(error, str(tmp_path / meta)) is error


def test_a_prefix_tells_it_too(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 10)
    gone = say_if_gone(CheckpointError("odd"), str(tmp_path / "my-model-5"))
    assert "the newest is my-model-10.meta" in str(gone)
