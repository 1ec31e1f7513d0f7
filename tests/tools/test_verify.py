"""`python -m tools.verify`: its lines, its JSON and its exit code, over damage of every file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from tests.test_thirdparty import THIRD_PARTY
from tests.tools.conftest import Tool

SUFFIXES = ("data-00000-of-00001", "index", "meta", "manifest")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": _flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "filled with zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def model(linear_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


@pytest.mark.parametrize("run", ["linear_run", "cnn_run"])
def test_a_fresh_run_is_well(run: str, tool: Tool, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    ended = tool("verify", folder)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert len(lines) == 5
    assert all(": ok" in line for line in lines)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_named_and_survives_a_repair(
    suffix: str, damage: str, model: Path, tool: Tool
) -> None:
    file = model / f"my-model-300.{suffix}"
    DAMAGES[damage](file)
    if (suffix, damage) == ("manifest", "gone"):  # Then it is as a stranger's, and TensorFlow's
        assert tool("verify", model).code == 0  # own checksums tell.
        assert "no manifest" in tool("verify", model).out
        return
    ended = tool("verify", model, "--format=json")
    record = json.loads(ended.out)
    assert (ended.code, record["ok"]) == (1, False)
    wrong = [found for found in record["checkpoints"] if not found["ok"]]
    assert [found["name"] for found in wrong] == ["my-model-300"]
    assert any(file.name in problem for problem in wrong[0]["problems"])
    left = file.read_bytes() if file.exists() else None
    repaired = tool("verify", model, "--repair")
    assert repaired.code == 1
    assert (file.read_bytes() if file.exists() else None) == left
    assert tf.train.latest_checkpoint(str(model)) == f"{model}/my-model-290"
    assert tool("verify", model / "my-model-300").code == 1
    assert tool("verify", model / "my-model-290").code == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_file_is_mended(damage: str, model: Path, tool: Tool) -> None:
    state = model / "checkpoint"
    original = state.read_bytes()
    DAMAGES[damage](state)
    assert tool("verify", model).code == 1
    ended = tool("verify", model, "--repair")
    assert ended.code == 0
    assert ended.out.startswith(f"wrote {state}: it names my-model-270, ")
    assert state.read_bytes() == original
    assert tool("verify", model, "--repair").out == tool("verify", model).out


@pytest.mark.parametrize("name", ["my-model-290", "my-model-290.meta", "my-model-290.index"])
def test_one_checkpoint_is_verified_alone(name: str, model: Path, tool: Tool) -> None:
    (model / "my-model-300.index").unlink()
    (model / "checkpoint").unlink()
    ended = tool("verify", model / name)
    assert (ended.code, ended.out) == (0, f"{model}/my-model-290: ok (3 tensors, 16 B)\n")


def test_a_name_that_lies_about_the_step_is_wrong(model: Path, tool: Tool) -> None:
    for file in model.glob("my-model-290.*"):
        if file.suffix != ".manifest":
            shutil.copy(file, model / file.name.replace("290", "300"))
    ended = tool("verify", model / "my-model-300")
    assert ended.code == 1
    assert "it is of step 290, whatever its name says" in ended.out


def test_what_is_no_checkpoint_ends_in_a_line(model: Path, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "frozen.pb").write_bytes(b"x")
    for path, line in [
        ("nowhere", f"there is no folder {tmp_path}/nowhere, and no {tmp_path}/nowhere.index"),
        ("empty", f"{tmp_path}/empty holds no checkpoint"),
        ("frozen.pb", "is no checkpoint"),
    ]:
        ended = tool("verify", tmp_path / path)
        assert (ended.code, ended.out) == (1, "")
        assert line in ended.err
        assert "\n" not in ended.err
    assert "is of a folder" in tool("verify", model / "my-model-290", "--repair").err
    assert tool("verify").code == 2


def test_a_saved_model_is_verified_by_its_variables(tmp_path: Path, tool: Tool) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, f"{tmp_path}/saved")
    for path in ("saved", "saved/variables", "saved/saved_model.pb", "saved/variables/variables"):
        ended = tool("verify", tmp_path / path)
        assert ended.code == 0
        assert "ok (2 tensors, 8 B)" in ended.out
    _flip(tmp_path / "saved/variables/variables.data-00000-of-00001")
    assert tool("verify", tmp_path / "saved").code == 1


def test_checkpoints_of_public_projects_are_whole(tmp_path: Path, tool: Tool) -> None:
    """Of most, the state file names what was not published; a repaired copy is well."""
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    for number, meta in enumerate(sorted(THIRD_PARTY.rglob("*.meta"))):
        ended = tool("verify", meta)
        assert ended.code == 0, ended
        assert "no manifest" in ended.out
        copy = Path(shutil.copytree(meta.parent, tmp_path / str(number)))
        record = json.loads(tool("verify", copy, "--repair", "--format=json").out)
        assert record["ok"], record
        newest = tf.train.latest_checkpoint(str(copy))
        assert newest is not None
        assert newest.startswith(f"{copy}/{meta.stem}")
