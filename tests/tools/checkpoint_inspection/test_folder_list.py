"""What a folder's list says of checkpoints whole, damaged and left over, and of the state file."""

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from checkpoints import manifest
from checkpoints.folder import read_newest, write_state
from tests.checkpoints.test_stored_tensors import save
from tools.checkpoint_inspection import list_checkpoints
from tools.folder_entries import find_leftovers


@pytest.fixture
def run(linear_run: Path, tmp_path: Path) -> Path:
    """A copy of a default run: my-model-270 to 300."""
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


def _list(path: str) -> dict[str, Any]:
    return read_newest([path], functools.partial(list_checkpoints, path))


def _states(found: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in found["checkpoints"]}


def test_a_run_of_ours(run: Path) -> None:
    found = _list(str(run))
    assert _states(found) == {f"my-model-{step}": "committed" for step in (270, 280, 290, 300)}
    assert [entry["step"] for entry in found["checkpoints"]] == [270, 280, 290, 300]
    assert (found["newest"], found["state_file"]["names"], found["state_file"]["right"]) == (
        *["my-model-300"] * 2,
        True,
    )
    assert found["best"] is None
    sizes = {path.name: path.stat().st_size for path in run.glob("my-model-300.*")}
    assert found["checkpoints"][-1]["bytes"] == sum(sizes.values())
    assert len(sizes) == 4
    said = manifest.read(str(run), 300)
    assert said is not None
    assert found["checkpoints"][-1]["saved_at"] == said.saved_at


def test_the_best_is_the_earliest_of_equals(run: Path) -> None:
    for step, accuracy in ((270, 0.5), (280, 0.75), (290, 0.75)):
        said = manifest.read(str(run), step)
        assert said is not None
        said = said._replace(test_accuracy=accuracy)
        (run / f"my-model-{step}.manifest").write_bytes(manifest.encode(said))
    assert _list(str(run))["best"] == "my-model-280"


def test_what_is_damaged_is_not_the_newest(run: Path) -> None:
    (run / "my-model-300.manifest").write_text("{}")
    with open(run / "my-model-290.data-00000-of-00001", "ab") as file:
        file.write(b"x")
    (run / "my-model-280.index").unlink()
    found = _list(str(run))
    assert [*_states(found).values()] == ["committed", "damaged", "damaged", "damaged"]
    problems = [entry["problem"] or "" for entry in found["checkpoints"]]
    assert "the manifest says" in problems[1]
    assert "the manifest says" in problems[2]
    assert "my-model-300.manifest is damaged" in problems[3]
    assert (found["newest"], found["state_file"]["right"]) == ("my-model-270", False)


def test_leftovers_are_those_that_verify_tells_of(run: Path) -> None:
    """Not a graph that lost its values, which may be a stranger's: that is of no checkpoint."""
    (run / "my-model-310.meta").write_bytes(b"graph")
    (run / "checkpoint.tmp").write_bytes(b"half")
    (run / ".new.being-edited").mkdir()
    (run / ".new.being-edited/model.index").write_bytes(b"half")
    found = _list(str(run))["checkpoints"][4:]
    assert [(entry["name"], entry["state"], entry["step"], entry["bytes"]) for entry in found] == [
        (".new.being-edited", "leftover", None, 4),
        ("checkpoint.tmp", "leftover", None, 4),
    ]
    assert [entry["name"] for entry in found] == [
        name for leftover in find_leftovers(str(run)) for name in leftover.names
    ]


def test_a_strangers_file_that_was_cut_short(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m-1", {"w": [1.0, 2.0]})
    save(tmp_path / "m-0", {"w": [1.0]})
    Path(f"{prefix}.data-00000-of-00001").write_bytes(b"abc")
    found = _list(str(tmp_path))
    assert (_states(found)["m-1"], found["newest"]) == ("damaged", "m-0")
    assert "has 3 bytes, its index speaks of 8" in (found["checkpoints"][1]["problem"] or "")


def test_an_older_one_in_the_state_file(run: Path) -> None:
    write_state(str(run), [270, 280])
    found = _list(str(run))
    assert (found["state_file"]["names"], found["newest"], found["state_file"]["right"]) == (
        "my-model-280",
        "my-model-300",
        False,
    )


def test_strangers(tmp_path: Path) -> None:
    """Of several runs in a folder, no step is the newest but by the state file."""
    for name in ("run.ckpt-20", "other-100", "plain", "model--1"):
        save(tmp_path / name, {"w": [1.0]})
    (tmp_path / "lost-5.data-00000-of-00002").write_bytes(b"")
    found = _list(str(tmp_path))
    assert _states(found) == {
        **dict.fromkeys(("run.ckpt-20", "other-100", "plain", "model--1"), "no manifest"),
        "lost-5": "damaged",
    }
    steps = {entry["name"]: entry["step"] for entry in found["checkpoints"]}
    assert steps == {
        "run.ckpt-20": 20,
        "other-100": 100,
        "plain": None,
        "model--1": 1,
        "lost-5": 5,
    }
    for age, name in enumerate(("plain", "run.ckpt-20", "other-100", "model--1")):
        os.utime(tmp_path / f"{name}.index", (1e9 - age, 1e9 - age))
    found = _list(str(tmp_path))
    assert (found["newest"], found["state_file"]) == ("plain", None)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/run.ckpt-20"')
    found = _list(str(tmp_path))
    assert (found["newest"], found["state_file"]["right"]) == ("run.ckpt-20", True)


def test_an_empty_name(tmp_path: Path) -> None:
    """As a Saver makes it that is given a folder with a slash at its end."""
    prefix = save(tmp_path / "m", {"w": [1.0]})
    for suffix in (".index", ".data-00000-of-00001"):
        Path(prefix + suffix).rename(tmp_path / suffix)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "./"')
    found = _list(str(tmp_path))
    assert (found["newest"], found["state_file"]["right"]) == ("", True)


@pytest.mark.parametrize(
    ("content", "named"), [(b"\xff\0", None), (b'model_checkpoint_path: "gone-1"', "gone-1")]
)
def test_a_state_file_that_is_wrong(content: bytes, named: str | None, tmp_path: Path) -> None:
    save(tmp_path / "m-1", {"w": [1.0]})
    (tmp_path / "checkpoint").write_bytes(content)
    found = _list(str(tmp_path))
    assert found["state_file"] == {"names": named, "right": False}
    assert found["newest"] == "m-1"


def test_a_folder_called_as_the_state_file_is(tmp_path: Path) -> None:
    save(tmp_path / "m-1", {"w": [1.0]})
    (tmp_path / "checkpoint").mkdir()
    assert _list(str(tmp_path))["state_file"] is None


def test_a_checkpoint_that_goes_while_it_is_looked_at(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that train delete older ones."""
    read = manifest.read

    def read_late(folder: str, step: int) -> manifest.Manifest | None:
        for path in run.glob("my-model-270.*"):
            path.unlink()
        return read(folder, step)

    monkeypatch.setattr(manifest, "read", read_late)
    found = _list(str(run))
    assert _states(found) == {f"my-model-{step}": "committed" for step in (280, 290, 300)}
