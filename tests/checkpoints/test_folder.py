"""The state of a folder follows from its files."""

import errno
import os
from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints import folder, naming
from checkpoints.naming import Retention
from errors import CheckpointError


def _touch(path: Path, step: int, *suffixes: str) -> None:
    for suffix in suffixes:
        (path / f"my-model-{step}{suffix}").write_bytes(b"")


OTHERS = (
    "notes-30.txt",
    "my-model-20261129.tar.gz",
    "my-model-30.txt",
    "my-model-60.meta",
    "my-model-100.npz",
    "my-model-100.pb",
    "my-model-0150.meta",
    "my-model-0150.manifest.tmp",
    "my-model-30.data-00000-of-00002",
    "my-model-٣.index",
)


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
    assert folder.delete_leftovers(str(path)) == [30, 40, 50]
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
    assert folder.delete_leftovers(str(path)) == [30, 50]
    assert sorted(p.name for p in path.iterdir()) == sorted(
        [
            "my-model-20.data-00000-of-00001",
            "my-model-20.index",
            "my-model-40.data-00000-of-00001",
            *(f"my-model-100{s}" for s in (*naming.CONTENT_SUFFIXES, ".manifest")),
            "my-model-100.export",
            *OTHERS,
        ]
    )
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


def test_state_is_read_by_tensorflow_wherever_the_folder_is(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder.write_state(str(path), [20, 100])
    assert tf.train.latest_checkpoint(str(path)) == str(path / "my-model-100")
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    path.rename(moved)
    state = tf.train.get_checkpoint_state(str(moved))
    assert state.model_checkpoint_path == str(moved / "my-model-100")
    assert list(state.all_model_checkpoint_paths) == [
        str(moved / "my-model-20"),
        str(moved / "my-model-100"),
    ]


def test_what_we_have_interrupted_is_known_by_its_pending_manifest(path: Path) -> None:
    found = folder.files_by_step(str(path))
    assert [step for step in found if folder.is_leftover(found[step])] == [30, 50]


def test_names_of_any_kind_stand_in_a_state_file(tmp_path: Path) -> None:
    names = ['quote"d', "größe", "new\nline", "m-?????-of-00002"]
    assert folder.write_state_of(str(tmp_path), names)
    assert not folder.write_state_of(str(tmp_path), names)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert [*state.all_model_checkpoint_paths] == [f"{tmp_path}/{name}" for name in names]
    assert state.model_checkpoint_path == f"{tmp_path}/{names[-1]}"
