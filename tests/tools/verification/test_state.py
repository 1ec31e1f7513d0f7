"""What is said of a state file, held against what plain TensorFlow makes of it."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from errors import CheckpointError
from tests.tools.verification.conftest import SaveAll
from tools.verify_checkpoint import GraphChecks, read_state, to_name
from tools.verifying import verify_folder

NAMES = [f"my-model-{step}" for step in (270, 280, 290, 300)]


def _write(folder: Path, newest: str, *kept: str) -> None:
    lines = [f'model_checkpoint_path: "{newest}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in kept]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


def _problems(folder: Path, graphs: GraphChecks) -> list[str]:
    state = verify_folder(str(folder), graphs).state
    assert state is not None
    return state.problems


def test_it_is_read_as_tensorflow_reads_it(ours: Path) -> None:
    state, theirs = read_state(str(ours)), tf.train.get_checkpoint_state(str(ours))
    assert state is not None
    assert [f"{ours}/{name}" for name in (state.newest, *state.kept)] == [
        theirs.model_checkpoint_path,
        *theirs.all_model_checkpoint_paths,
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b'model_checkpoint_path "x"', b"\xff\xfe", b'model_checkpoint_pbth: "x"'],
)
def test_what_tensorflow_finds_nothing_in_is_damaged(content: bytes, ours: Path) -> None:
    (ours / "checkpoint").write_bytes(content)
    with pytest.raises(CheckpointError, match="it is damaged"):
        read_state(str(ours))


def test_a_trainers_own_is_right(ours: Path, graphs: GraphChecks) -> None:
    assert _problems(ours, graphs) == []


@pytest.mark.parametrize(
    ("newest", "kept", "problem"),
    [
        (NAMES[2], NAMES, "its newest is my-model-290, that of the folder is my-model-300"),
        (NAMES[3], NAMES[1:], "it does not name my-model-270"),
        (NAMES[3], [*NAMES, "my-model-310"], "it names my-model-310: not there"),
        ("/elsewhere/my-model-300", NAMES, "it names /elsewhere/my-model-300: not there"),
        ("C:\\\\run\\\\my-model-300", NAMES, "it names C:\\run\\my-model-300: not there"),
    ],
)
def test_what_it_says_wrongly(
    newest: str, kept: list[str], problem: str, ours: Path, graphs: GraphChecks
) -> None:
    _write(ours, newest, *kept)
    assert _problems(ours, graphs) == [problem]


def test_absolute_paths_that_lead_there_are_remarked_on(ours: Path, graphs: GraphChecks) -> None:
    _write(ours, f"{ours}/my-model-300", *(f"{ours}/{name}" for name in NAMES))
    found = verify_folder(str(ours), graphs)
    assert found.is_well
    assert found.state is not None
    assert len(found.state.remarks) == 1


def test_a_trainer_does_not_name_what_has_no_manifest(ours: Path, graphs: GraphChecks) -> None:
    (ours / "my-model-300.manifest").unlink()
    assert _problems(ours, graphs) == []
    _write(ours, NAMES[2], *NAMES[:3])
    assert _problems(ours, graphs) == []


def test_a_strangers_names_what_it_likes_if_it_is_there(
    stock: SaveAll, graphs: GraphChecks
) -> None:
    folder = stock("a-1", "a-2")
    assert verify_folder(str(folder), graphs).is_well
    _write(folder, "a-1", "a-1")
    found = verify_folder(str(folder), graphs)
    assert found.is_well
    assert found.state is not None
    assert found.state.remarks == ["its newest is a-1, that of the folder is a-2"]


def test_strangers_are_ordered_by_step_or_else_by_time(stock: SaveAll, graphs: GraphChecks) -> None:
    folder = stock("a-9", "a-10")
    names = [v.entry.name for v in to_name(verify_folder(str(folder), graphs).checkpoints)]
    assert names == ["a-9", "a-10"]
    folder = stock("best")
    for age, name in enumerate(["a-10", "best", "a-9"]):
        os.utime(folder / f"{name}.index", (1e9 - age, 1e9 - age))
    names = [v.entry.name for v in to_name(verify_folder(str(folder), graphs).checkpoints)]
    assert names == ["a-9", "best", "a-10"]
