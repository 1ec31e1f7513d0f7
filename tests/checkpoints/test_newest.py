"""Reading beside a process that trains."""

import functools
from pathlib import Path

import pytest

from checkpoints import folder
from checkpoints.folder import Hold, newest_meta_graph, read_newest, say_if_gone
from checkpoints.naming import Retention
from errors import CheckpointError


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


def _save(path: Path, step: int) -> None:
    """As a trainer that keeps the newest one alone."""
    _checkpoint(path, step)
    folder.after_save(str(path), step, Retention(max_to_keep=1))


def test_what_is_held_goes_with_a_later_save(tmp_path: Path) -> None:
    _save(tmp_path, 1)

    def read(hold: Hold) -> list[int]:
        hold(f"{tmp_path}/my-model-1")
        for step in (2, 3):
            _save(tmp_path, step)
        return folder.usable_steps(str(tmp_path))

    assert read_newest([str(tmp_path)], read) == [1, 3]
    _save(tmp_path, 4)
    assert folder.usable_steps(str(tmp_path)) == [4]


def _read_late(path: Path, last: int, hold: Hold) -> int:
    """The trainer has saved and deleted before anything could be held."""
    (step,) = folder.usable_steps(str(path))
    if step < last:
        _save(path, step + 1)
    hold(f"{path}/my-model-{step}")
    if step < last:
        raise CheckpointError(f"my-model-{step} is gone")
    return step


def test_what_is_gone_is_read_anew_so_many_times(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    read = functools.partial(_read_late, tmp_path)
    assert read_newest([str(tmp_path)], functools.partial(read, 20)) == 20
    with pytest.raises(CheckpointError, match=r"faster than they can be read: .*--max_to_keep"):
        read_newest([str(tmp_path)], functools.partial(read, 100))
    assert folder.usable_steps(str(tmp_path)) == [40]


def test_what_is_wrong_with_a_checkpoint_that_is_there_is_said_at_once(tmp_path: Path) -> None:
    _save(tmp_path, 1)

    def read(hold: Hold) -> None:
        (step,) = folder.usable_steps(str(tmp_path))
        hold(f"{tmp_path}/my-model-{step}")
        _save(tmp_path, step + 1)
        raise CheckpointError(f"{step} has no such tensor")

    with pytest.raises(CheckpointError, match=r"^1 has no such tensor"):
        read_newest([str(tmp_path)], read)
