"""What --repair does to a folder, and what it never does to a checkpoint."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints import file_io
from checkpoints.lock import FolderLock
from errors import CheckpointError, ToolError
from tests.tools.conftest import Tool
from tests.tools.verification.conftest import SaveAll
from tools.verify_checkpoint import GraphChecks
from tools.verifying import repair_folder, verify_folder


def _contents(folder: Path) -> dict[str, bytes]:
    """Of the files of checkpoints."""
    files = (path for path in folder.iterdir() if path.is_file() and "-" in path.name)
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("content", [None, b"", b"\0" * 64, b'model_checkpoint_path: "gone"\n'])
def test_a_state_file_is_written_as_a_trainer_writes_it(
    content: bytes | None, ours: Path, graphs: GraphChecks
) -> None:
    state = ours / "checkpoint"
    original = state.read_bytes()
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    before = _contents(ours)
    found, done = repair_folder(str(ours), graphs)
    assert found.is_well
    assert len(done) == 1
    assert state.read_bytes() == original
    assert _contents(ours) == before
    again, done = repair_folder(str(ours), graphs)
    assert again.is_well
    assert done == []


def test_what_is_damaged_stays_and_is_not_named(ours: Path, graphs: GraphChecks) -> None:
    (ours / "my-model-300.data-00000-of-00001").write_bytes(b"?" * 16)
    (ours / "my-model-280.index").unlink()
    before = _contents(ours)
    found, done = repair_folder(str(ours), graphs)
    assert not found.is_well
    assert found.is_tidy
    assert len(done) == 1
    assert _contents(ours) == before
    assert tf.train.latest_checkpoint(str(ours)) == f"{ours}/my-model-290"
    kept = tf.train.get_checkpoint_state(str(ours)).all_model_checkpoint_paths
    assert [os.path.basename(path) for path in kept] == ["my-model-270", "my-model-290"]
    assert repair_folder(str(ours), graphs)[1] == []


def test_leftovers_go_and_nothing_else(ours: Path, graphs: GraphChecks) -> None:
    (ours / "my-model-310.manifest.tmp").write_bytes(b"")
    (ours / "my-model-310.data-00000-of-00001").write_bytes(b"half")
    (ours / "checkpoint.tmp").write_bytes(b"half")
    (ours / "my-model-320.data-00000-of-00001").write_bytes(b"of a checkpoint without its index")
    (ours / "notes.txt").write_text("mine")
    before = {path.name for path in ours.iterdir()}
    found, done = repair_folder(str(ours), graphs)
    gone = {"my-model-310.manifest.tmp", "my-model-310.data-00000-of-00001", "checkpoint.tmp"}
    assert before - {path.name for path in ours.iterdir()} == gone
    assert len(done) == 2
    assert all(line.startswith("cleared ") for line in done)
    assert [v.entry.name for v in found.checkpoints if not v.is_whole] == ["my-model-320"]


def test_where_none_is_whole_the_state_file_stays(ours: Path, graphs: GraphChecks) -> None:
    for index in ours.glob("*.index"):
        index.write_bytes(b"")
    before = (ours / "checkpoint").read_bytes()
    _, done = repair_folder(str(ours), graphs)
    assert done == [f"left {ours}/checkpoint as it is: none is whole to name"]
    assert (ours / "checkpoint").read_bytes() == before


def test_a_strangers_state_file_is_made_from_what_is_there(
    stock: SaveAll, graphs: GraphChecks
) -> None:
    folder = stock("a-9", "a-10")
    before = {*folder.iterdir()}
    (folder / "checkpoint").unlink()
    found, _ = repair_folder(str(folder), graphs)
    assert found.is_well
    assert {*folder.iterdir()} == before
    assert tf.train.latest_checkpoint(str(folder)) == f"{folder}/a-10"
    folder.rename(folder.parent / "moved")
    assert tf.train.latest_checkpoint(f"{folder.parent}/moved") == f"{folder.parent}/moved/a-10"


@pytest.mark.parametrize("name", ['quote"d', "back\\slash", "größe", "new\nline", ""])
def test_any_name_can_stand_in_it(name: str, stock: SaveAll, graphs: GraphChecks) -> None:
    folder = stock("plain")
    for file in folder.glob("plain.*"):
        file.rename(folder / file.name.replace("plain", name, 1))
    (folder / "checkpoint").write_bytes(b"")
    found, _ = repair_folder(str(folder), graphs)
    assert found.is_well, found
    state = tf.train.get_checkpoint_state(str(folder))
    assert state.model_checkpoint_path == f"{folder}/{name or './'}"
    if "\\" not in name:  # TensorFlow takes it for a pattern.
        assert tf.train.latest_checkpoint(str(folder)) == state.model_checkpoint_path


def test_the_first_format_in_shards_is_named_as_a_pattern(
    stock: SaveAll, graphs: GraphChecks
) -> None:
    folder = stock("m", write_version=tf.compat.v1.train.SaverDef.V1, sharded=True)
    theirs = tf.train.latest_checkpoint(str(folder))
    (folder / "checkpoint").unlink()
    assert repair_folder(str(folder), graphs)[0].is_well
    assert tf.train.latest_checkpoint(str(folder)) == theirs


@pytest.mark.parametrize("step", ["write_file", "rename", "remove"])
def test_a_repair_that_fails_loses_nothing_and_is_done_by_the_next(
    step: str, ours: Path, graphs: GraphChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours / "checkpoint").write_bytes(b"damaged")
    (ours / "my-model-310.manifest.tmp").write_bytes(b"")
    before = _contents(ours)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_io, step, full)
        with pytest.raises(ToolError, match=r"cannot be repaired: .*No space left"):
            repair_folder(str(ours), graphs)
    del before["my-model-310.manifest.tmp"]
    assert before.items() <= _contents(ours).items()
    assert repair_folder(str(ours), graphs)[0].is_well


def test_a_folder_that_is_trained_is_refused_and_one_checkpoint_of_it_is_not(
    ours: Path, tool: Tool
) -> None:
    with FolderLock(str(ours)):
        ended = tool("verify", ours)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(f"{ours} is in use by process ")
        assert ended.err.endswith(
            "wait for it to end, or verify one checkpoint alone, by its prefix"
        )
        assert tool("verify", ours / "my-model-290").code == 0


def test_damage_in_a_folder_in_which_a_run_begins_is_refused_too(
    ours: Path, graphs: GraphChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours / "my-model-280.index").write_bytes(b"")
    assert not verify_folder(str(ours), graphs).is_well
    holders = [None, "process 7 on host"]
    monkeypatch.setattr("checkpoints.lock.holder", lambda _: holders.pop(0))
    with pytest.raises(CheckpointError, match="is in use by process 7 on host"):
        verify_folder(str(ours), graphs)
