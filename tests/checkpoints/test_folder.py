"""The state of a folder follows from its files; reading it beside a process that trains."""

import errno
import functools
import os
from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.folder import Retention, explain_if_gone, newest_meta_graph
from checkpoints.lock import Hold, read_newest
from errors import CheckpointError

OTHERS = (
    "notes-30.txt",
    "my-model-20261129.tar.gz",
    "my-model-30.txt",
    "my-model-60.meta",
    "my-model-100.npz",
    "my-model-0150.meta",
    "my-model-0150.manifest.tmp",
    "my-model-30.data-00000-of-00002",
    "my-model-٣.index",
)


def _touch(path: Path, step: int, *suffixes: str) -> None:
    for suffix in suffixes:
        (path / f"my-model-{step}{suffix}").write_bytes(b"")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One checkpoint of ours, one of a stock Saver, two cut short, and what is someone's own."""
    _touch(tmp_path, 100, *naming.CONTENT_SUFFIXES, ".manifest")
    _touch(tmp_path, 20, ".data-00000-of-00001", ".index")
    _touch(tmp_path, 30, *naming.CONTENT_SUFFIXES, ".manifest.tmp")
    _touch(tmp_path, 40, ".data-00000-of-00001")
    _touch(tmp_path, 50, ".manifest.tmp")
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "my-model-100.export").mkdir()
    return tmp_path


def test_names() -> None:
    assert naming.checkpoint_prefix("model1", 190) == "model1/my-model-190"
    for suffix in (*naming.CONTENT_SUFFIXES, naming.MANIFEST_SUFFIX):
        assert naming.split_name(naming.checkpoint_name(7) + suffix) == (7, suffix)
    for name in (
        "checkpoint",
        "my-model-.index",
        "my-model-7",
        "other-7.index",
        "xmy-model-7.meta",
    ):
        assert naming.split_name(name) is None


def test_usable_steps_rise_and_leave_out_leftovers(path: Path) -> None:
    assert folder.usable_steps(str(path)) == [20, 100]
    assert folder.usable_steps(str(path / "absent")) == []


def test_a_name_that_is_not_utf_8_is_passed_over(path: Path) -> None:
    before = folder.files_by_step(str(path))
    strange = [bytes(path) + name for name in (b"/my-model-7.\xff", b"/\xff\xfe.index")]
    for name in strange:
        Path(os.fsdecode(name)).touch()
    assert folder.files_by_step(str(path)) == before
    assert folder.after_save(str(path), 100, Retention(max_to_keep=1))
    assert all(map(os.path.exists, strange))


def test_a_folder_that_may_not_be_listed_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(CheckpointError, match=f"^{path} cannot be read: Permission denied$"):
        folder.usable_steps(str(path))


def test_only_leftovers_are_cleared(path: Path) -> None:
    before = {p.name for p in path.iterdir()}
    assert folder.delete_leftovers(str(path)) == [30, 50]
    gone = {f"my-model-30{s}" for s in (*naming.CONTENT_SUFFIXES, ".manifest.tmp")}
    assert before - {p.name for p in path.iterdir()} == gone | {"my-model-50.manifest.tmp"}
    assert folder.remains(str(path)) == ["my-model-40.data-00000-of-00001"]


def test_a_save_moves_what_is_not_ours_out_of_its_way(path: Path) -> None:
    (path / "my-model-60.meta.set-aside").write_bytes(b"older")
    assert folder.make_way(str(path), 60) == [str(path / "my-model-60.meta.set-aside-2")]
    assert (path / "my-model-60.meta.set-aside-2").read_bytes() == b"mine"
    assert folder.make_way(str(path), 30) == []
    assert [p.name for p in path.glob("my-model-30.*") if p.name not in OTHERS] == []


@pytest.mark.parametrize("step", [100, 20, 30])
def test_delete_leaves_nothing_of_a_step(path: Path, step: int) -> None:
    folder.delete_checkpoint(str(path), step)
    assert step not in folder.files_by_step(str(path))
    assert {*OTHERS} <= {p.name for p in path.iterdir()}


# The state file, against what TensorFlow reads and writes, and what others have left.


def test_a_state_file_is_read_by_tensorflow_wherever_the_folder_is(path: Path) -> None:
    names = ['quote"d', "größe", "new\nline", "m-?????-of-00002", "my-model-100"]
    assert folder.write_state(str(path), names)
    assert not folder.write_state(str(path), names)
    assert folder.read_state(f"{path}/checkpoint") == "my-model-100"
    moved = path.rename(path.with_name("elsewhere"))
    state = tf.train.get_checkpoint_state(str(moved))
    assert state.model_checkpoint_path == str(moved / "my-model-100")
    assert [*state.all_model_checkpoint_paths] == [f"{moved}/{name}" for name in names]


def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    for name in ("m-7", "a b.ckpt--1", "gr\u00fcn", ""):
        tf.compat.v1.train.update_checkpoint_state(
            str(tmp_path), f"/elsewhere/{name}", all_model_checkpoint_paths=["/elsewhere/m-6"]
        )
        assert folder.named_checkpoint(f"{tmp_path}/checkpoint") == name


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
def test_what_others_have_left_in_a_state_file(tmp_path: Path, text: str, name: str | None) -> None:
    state = tmp_path / "checkpoint"
    assert folder.named_checkpoint(str(state)) is None
    state.mkdir()
    assert folder.named_checkpoint(str(state)) is None
    state.rmdir()
    state.write_text(text)
    assert folder.named_checkpoint(str(state)) == name


def _checkpoint(path: Path, step: int, manifest: str = ".manifest") -> None:
    _touch(path, step, *naming.CONTENT_SUFFIXES, manifest)


def test_the_newest_is_one_that_is_whole(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoint my-model-<step>"):
        newest_meta_graph(str(tmp_path))
    _checkpoint(tmp_path, 9)
    _checkpoint(tmp_path, 10)
    _checkpoint(tmp_path, 11, manifest=".manifest.tmp")
    assert newest_meta_graph(str(tmp_path)) == str(tmp_path / "my-model-10.meta")


def test_an_error_tells_when_the_checkpoint_has_gone(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 10)
    error = CheckpointError("odd")
    for name in ("my-model-5.meta", "my-model-5"):
        gone = str(explain_if_gone(error, str(tmp_path / name)))
        assert f"{name} is not there, or was deleted" in gone
        assert "the newest is my-model-10.meta" in gone
    for name in ("my-model-10.meta", "other.meta", "nowhere/my-model-1.meta"):
        assert explain_if_gone(error, str(tmp_path / name)) is error


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
