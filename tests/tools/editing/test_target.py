"""The files of a new checkpoint: in place and whole, or not there."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints import file_io
from errors import CheckpointError, ToolError
from tools.edit_files import Target

SUFFIXES = (".data-00000-of-00001", ".index", ".meta")


def _fill(target: Target, text: str = "new") -> None:
    for suffix in SUFFIXES:
        Path(target.prefix + suffix).write_text(text)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_files_are_moved_into_a_folder_that_is_made(tmp_path: Path) -> None:
    with Target(f"{tmp_path}/a/b/model", [], overwrite=False) as target:
        _fill(target)
        names = target.commit()
    assert names == sorted(["checkpoint", *(f"model{s}" for s in SUFFIXES)])
    assert _names(tmp_path / "a/b") == {*names}
    assert tf.train.latest_checkpoint(f"{tmp_path}/a/b") == f"{tmp_path}/a/b/model"
    assert str(tmp_path) not in (tmp_path / "a/b/checkpoint").read_text()


def test_a_state_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("mine")
    with Target(f"{tmp_path}/model", [], overwrite=False) as target:
        _fill(target)
        assert "checkpoint" not in target.commit()
    assert (tmp_path / "checkpoint").read_text() == "mine"


def test_what_is_not_committed_is_gone(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Target(f"{tmp_path}/m", [], overwrite=False) as target:
            _fill(target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00002", ".meta", ".manifest", ""])
def test_what_is_there_is_replaced_only_if_asked_for(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model{suffix}").write_text("old")
    (tmp_path / "model-2.index").write_text("another")
    with pytest.raises(ToolError, match=f"model{suffix} is there; --overwrite replaces it"):
        Target(f"{tmp_path}/model", [], overwrite=False)
    with Target(f"{tmp_path}/model", [], overwrite=True) as target:
        _fill(target)
        target.commit()
    assert _names(tmp_path) == {"checkpoint", "model-2.index", *(f"model{s}" for s in SUFFIXES)}
    assert (tmp_path / "model.index").read_text() == "new"


def _interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what renames and removes files stop at the next one, as when the machine goes off."""
    done = itertools.count()

    def stopping(step: Callable[..., None]) -> Callable[..., None]:
        def call(*paths: str) -> None:
            if next(done) >= steps:
                raise KeyboardInterrupt
            step(*paths)

        return call

    monkeypatch.setattr(file_io, "rename", stopping(os.replace))
    monkeypatch.setattr(file_io, "remove", stopping(os.remove))


def _replace(folder: Path) -> None:
    """Puts a new checkpoint in the place of an old one."""
    folder.mkdir()
    for suffix in (*SUFFIXES, ".manifest"):
        (folder / f"my-model-3{suffix}").write_text("old")
    with (
        contextlib.suppress(KeyboardInterrupt),
        Target(f"{folder}/my-model-3", [], overwrite=True) as target,
    ):
        _fill(target)
        target.commit()


def test_wherever_it_is_interrupted_an_index_has_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for steps in range(9):  # Four files to remove, three and the state file to rename.
        with monkeypatch.context() as patch:
            _interrupt_after(steps, patch)
            _replace(tmp_path / str(steps))
        files = {p.suffix: p for p in (tmp_path / str(steps)).glob("my-model-3.*")}
        if ".index" not in files:
            seen.append("")
            continue
        texts = {path.read_text() for path in files.values()}
        assert len(texts) == 1
        assert len(files) >= len(SUFFIXES)
        assert (".manifest" not in files) or texts == {"old"}
        seen.append(texts.pop())
    assert [text for text, _ in itertools.groupby(seen)] == ["old", "", "new"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for output in (f"{tmp_path}/model", "model", "./model", "link/model"):
        with pytest.raises(ToolError, match="is the source, which is never touched"):
            Target(output, ["other", f"{tmp_path}/model"], overwrite)


@pytest.mark.parametrize("output", ["", ".", "folder", "folder/", "checkpoint"])
def test_what_is_no_prefix_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError, match="is no prefix of a checkpoint: add a name"):
        Target(output, [], overwrite=True)


def test_the_name_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=f"is a file's name: expected {tmp_path}/model$"):
        Target(f"{tmp_path}/model.meta", [], overwrite=True)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="--output="), Target(f"{tmp_path}/file/m", [], False):
        pass


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        _fill(Target(f"{tmp_path}/model", [], overwrite=False).__enter__(), "half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    aside = tmp_path / ".model.being-edited"
    assert _names(aside) == {".lock", *(f"model{suffix}" for suffix in SUFFIXES)}
    (aside / "model.data-00001-of-00002").touch()
    with Target(f"{tmp_path}/model", [], overwrite=False) as target:
        assert _names(aside) == {".lock"}
        _fill(target)
        target.commit()
    assert _names(tmp_path) == {"checkpoint", *(f"model{suffix}" for suffix in SUFFIXES)}


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    with Target(f"{tmp_path}/model", [], overwrite=False) as first:
        _fill(first)
        with (
            pytest.raises(CheckpointError, match=r"is in use by process \d+ .* another --output$"),
            Target(f"{tmp_path}/model", [], overwrite=False),
        ):
            pass
        with Target(f"{tmp_path}/other", [], overwrite=False) as other:
            _fill(other, "other")
            other.commit()
        first.commit()
    assert (tmp_path / "model.index").read_text() == "new"
    assert (tmp_path / "other.index").read_text() == "other"


def test_a_disk_without_a_place_for_the_lock_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with (
        pytest.raises(ToolError, match=f"--output={tmp_path}/m: .*No space left"),
        Target(f"{tmp_path}/m", [], overwrite=False),
    ):
        pass
    assert _names(tmp_path) == set()
