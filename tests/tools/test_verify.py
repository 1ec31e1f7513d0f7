"""`python -m tools.verify`: its lines, JSON and exit code; what --repair does and leaves."""

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

import file_io
import train_linear
from checkpoints import layout
from checkpoints.lock import FolderLock
from cli.fields import parse
from tests.prediction import stock
from tests.runs import flip_a_bit
from tests.tools.conftest import Tool, document
from train_linear import LinearConfig

v1 = tf.compat.v1
SUFFIXES = ("data-00000-of-00001", "index", "meta", "manifest")
NAMES = [f"my-model-{step}" for step in (270, 280, 290, 300)]
Verify: TypeAlias = Callable[..., dict[str, Any]]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip_a_bit,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "filled with zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def verify(tool: Tool) -> Verify:
    """What the command finds, the import of graphs included, as JSON."""
    return partial(document, tool, "verify", "--deep")


def _contents(folder: Path) -> dict[str, bytes]:
    """Of the files of checkpoints."""
    files = (path for path in folder.iterdir() if path.is_file() and "-" in path.name)
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_named_and_survives_a_repair(
    suffix: str, damage: str, run: Path, tool: Tool, verify: Verify
) -> None:
    file = run / f"my-model-300.{suffix}"
    DAMAGES[damage](file)
    if (suffix, damage) == ("manifest", "gone"):  # Then it is as a stranger's, and TensorFlow's
        assert tool("verify", run).code == 0  # own checksums tell.
        assert "no manifest" in tool("verify", run).out
        return
    (wrong,) = [found for found in verify(run)["checkpoints"] if not found["ok"]]
    assert wrong["name"] == "my-model-300"
    assert any(file.name in problem for problem in wrong["problems"])
    before = _contents(run)
    repaired = verify(run, "--repair")
    assert len(repaired["repaired"]) == 1
    assert (repaired["state"]["ok"], repaired["leftovers"]) == (True, [])
    assert _contents(run) == before
    assert tf.train.latest_checkpoint(str(run)) == f"{run}/my-model-290"
    kept = tf.train.get_checkpoint_state(str(run)).all_model_checkpoint_paths
    assert [os.path.basename(path) for path in kept] == NAMES[:3]
    assert verify(run, "--repair")["repaired"] == []
    assert tool("verify", run / "my-model-300").code == 1
    assert tool("verify", run / "my-model-290").code == 0


def test_a_saved_model_is_verified_by_its_variables(tmp_path: Path, tool: Tool) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, f"{tmp_path}/saved")
    for path in ("saved", "saved/variables", "saved/saved_model.pb", "saved/variables/variables"):
        assert "ok (2 tensors, 8 B)" in tool("verify", tmp_path / path).out
    flip_a_bit(tmp_path / "saved/variables/variables.data-00000-of-00001")
    assert tool("verify", tmp_path / "saved").code == 1


def test_checkpoints_of_public_projects_are_whole(
    third_party: Path, tmp_path: Path, verify: Verify
) -> None:
    """Of most, the state file names what was not published; a repaired copy is well."""
    for number, meta in enumerate(sorted(third_party.rglob("*.meta"))):
        (found,) = verify(meta)["checkpoints"]
        assert found["ok"], found
        assert "no manifest" in found["remarks"][0]
        copy = Path(shutil.copytree(meta.parent, tmp_path / str(number)))
        assert verify(copy, "--repair")["ok"]
        newest = tf.train.latest_checkpoint(str(copy))
        assert newest is not None
        assert newest.startswith(f"{copy}/{meta.stem}")


# A checkpoint and its graph.


def _variable(name: str, size: int) -> tf.Variable:
    return v1.get_variable(name, initializer=[0.0] * size, use_resource=False)


@pytest.mark.parametrize(
    ("held", "problems"),
    [
        ({"a": 1, "b": 1}, []),
        ({"a": 1}, ["b is missing"]),
        ({"a": 2, "b": 1}, ["a is float32 [2], the graph has float32 [1]"]),
    ],
)
def test_what_the_saver_saves_has_to_be_there(
    held: dict[str, int], problems: list[str], tmp_path: Path, verify: Verify
) -> None:
    for name, sizes in (("graph", {"a": 1, "b": 1}), ("held", held)):
        with stock.checkpoint(tmp_path / name):
            for variable, size in sizes.items():
                _variable(variable, size)
    shutil.copy(tmp_path / "graph.meta", tmp_path / "held.meta")
    assert verify(tmp_path / "held")["checkpoints"][0]["problems"] == problems


def test_variables_that_no_saver_saves_may_be_missing(tmp_path: Path, verify: Verify) -> None:
    """Those that it leaves out; without a saver, the local ones."""
    kept = list[tf.Variable]()
    with stock.checkpoint(tmp_path / "m", var_list=kept):
        kept.append(_variable("kept", 1))
        _variable("dropped", 2)
    assert verify(tmp_path / "m")["ok"]
    with stock.checkpoint(tmp_path / "n"):
        _variable("a", 1)
        v1.get_variable("counted", initializer=[0.0], collections=["local_variables"])
        alone = v1.train.export_meta_graph(graph=v1.get_default_graph())
    (tmp_path / "n.meta").write_bytes(alone.SerializeToString())
    assert verify(tmp_path / "n")["ok"]


def test_an_operation_that_is_not_here_cannot_be_imported(
    tmp_path: Path, tool: Tool, verify: Verify
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _variable("a", 1)
    stock.edit_meta(
        tmp_path / "m.meta", lambda m: m.graph_def.node.add(name="y", op="NobodyHasThis")
    )
    (problem,) = verify(tmp_path / "m")["checkpoints"][0]["problems"]
    assert problem.startswith("its graph cannot be imported")
    assert "NobodyHasThis" in problem
    assert tool("verify", tmp_path / "m").code == 0  # Of the file alone, all is well.


def test_nothing_of_a_graph_is_run(tmp_path: Path, verify: Verify) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _variable("a", 1)
        tf.io.write_file(f"{tmp_path}/written", "x")
        tf.raw_ops.DebugIdentity(input=[1.0], debug_urls=[f"file://{tmp_path}/debug"])
    assert verify(tmp_path / "m")["ok"]
    assert not {"written", "debug"} & {path.name for path in tmp_path.iterdir()}


def test_an_equal_graph_is_imported_once(
    run: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = []
    monkeypatch.setattr(
        "tools.verifying.import_disarmed", lambda meta, _: imported.append(meta.path)
    )
    assert verify(run)["ok"]
    assert imported == [f"{run}/my-model-270.meta"]


def _several(path: Path, **saver_options: Any) -> Path:
    with stock.checkpoint(path / "m", **saver_options):
        v1.get_variable("a", initializer=np.arange(1000.0), use_resource=False)
        v1.get_variable("b", initializer=np.arange(6).reshape(2, 3), use_resource=False)
        v1.get_variable("words", initializer=["x", "yy"], use_resource=False)
    return path / "m"


@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
@pytest.mark.parametrize("sharded", [False, True])
def test_it_counts_what_it_reads_also_without_a_graph(
    version: int, sharded: bool, tmp_path: Path, verify: Verify
) -> None:
    prefix = _several(tmp_path, write_version=version, sharded=sharded)
    prefix.with_suffix(".meta").unlink()
    (found,) = verify(prefix)["checkpoints"]
    assert (found["ok"], found["tensors"], found["bytes"]) == (True, 3, 1000 * 8 + 6 * 8)
    assert "it has no .meta: only its values could be looked at" in found["remarks"]


def test_one_damaged_tensor_is_named_and_the_others_are_read(
    tmp_path: Path, verify: Verify
) -> None:
    prefix = _several(tmp_path)
    flip_a_bit(prefix.with_suffix(".data-00000-of-00001"))
    (found,) = verify(prefix)["checkpoints"]
    assert found["tensors"] == 3
    (line,) = found["problems"]
    assert line.startswith("1 of its 3 tensors cannot be read: a: ")
    assert "hecksum" in line


# The chain of manifests.


def test_the_chain_is_cut_by_retention_and_broken_by_a_change(
    run: Path, tool: Tool, verify: Verify
) -> None:
    """A manifest in the middle is made anew, with a hash that fits, a later one gets another."""
    cut = "cut before my-model-270, which follows my-model-260.manifest: that is gone"
    assert verify(run)["history"] == {"ok": True, "problems": [], "remarks": [cut]}
    assert f"the chain of manifests: ok\n  remark: {cut}\n" in tool("verify", run).out
    path = run / "my-model-280.manifest"
    before, said = layout.digest(path.read_bytes()).sha256, layout.read_manifest(str(run), 280)
    assert said is not None
    assert said.previous == layout.previous_manifest(str(run), 270)
    path.write_bytes(layout.encode_manifest(said._replace(config={**said.config, "seed": 7})))
    after = layout.digest(path.read_bytes()).sha256
    told = (
        f"my-model-290 follows a my-model-280.manifest with SHA-256 {before[:8]}..., and this one "
        f"has {after[:8]}...: it was changed, or is of another history"
    )
    found = verify(run)
    assert (found["ok"], found["history"]["problems"]) == (False, [told])
    assert all(each["ok"] for each in found["checkpoints"])
    assert f"the chain of manifests: wrong: {told}\n" in tool("verify", run).out
    assert tool("verify", run, "--repair").code == 1  # Nothing can mend it.
    assert tool("verify", run / "my-model-290").code == 1
    for name in NAMES[1:3]:
        for file in run.glob(f"{name}.*"):
            file.unlink()
    other = cut.replace("270", "300").replace("260", "290")
    assert verify(run)["history"]["remarks"] == [cut, other]


def test_manifests_of_before_the_chain_are_valid(run: Path, tool: Tool, verify: Verify) -> None:
    """Such a run goes on, and its chain begins there."""
    for step in (270, 280, 290):
        said = layout.read_manifest(str(run), step)
        assert said is not None
        path = run / f"my-model-{step}.manifest"
        path.write_bytes(layout.encode_manifest(said._replace(previous=None)))
        assert b"previous" not in path.read_bytes()
    for file in run.glob("my-model-300.*"):
        file.unlink()
    found = verify(run, "--repair")
    assert (found["ok"], found["history"]["remarks"]) == (True, [])
    assert "chain" not in tool("verify", run).out
    train_linear.train(parse(LinearConfig, ["s", f"--ckpt_dir={run}"]))
    now = layout.read_manifest(str(run), 300)
    assert now is not None
    assert now.previous == layout.previous_manifest(str(run), 290)
    assert verify(run)["ok"]


def test_a_run_that_stepped_back_after_damage_has_one_chain(run: Path, verify: Verify) -> None:
    """What was stepped over is written anew, or stays and is no link."""
    flip_a_bit(run / "my-model-290.index")
    flip_a_bit(run / "my-model-300.data-00000-of-00001")
    config = parse(LinearConfig, ["s", f"--ckpt_dir={run}", "--save_every_steps=7"])
    train_linear.train(config)
    chain = {
        step: said.previous.step
        for step in (287, 294, 300)
        if (said := layout.read_manifest(str(run), step)) and said.previous
    }
    assert chain == {287: 280, 294: 287, 300: 294}
    assert verify(run)["history"]["ok"]


# The state file.


def _write(folder: Path, newest: str, *kept: str) -> None:
    lines = [f'model_checkpoint_path: "{newest}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in kept]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\0" * 64, b'model_checkpoint_path "x"', b"\xff\xfe", b'model_checkpoint_pb: "x"'],
)
def test_a_damaged_state_file_is_written_as_a_trainer_writes_it(
    content: bytes | None, run: Path, verify: Verify
) -> None:
    state = run / "checkpoint"
    original, before = state.read_bytes(), _contents(run)
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    (problem,) = verify(run)["state"]["problems"]
    assert "not there" in problem if content is None else "it is damaged" in problem
    found = verify(run, "--repair")
    assert found["ok"]
    (line,) = found["repaired"]
    assert line.startswith(f"wrote {state}: it names my-model-270, ")
    assert state.read_bytes() == original
    assert _contents(run) == before
    assert verify(run, "--repair")["repaired"] == []


@pytest.mark.parametrize(
    ("newest", "problems"),
    [
        (NAMES[2], ["its newest is my-model-290, that of the folder is my-model-300"]),
        ("my-model-310", ["it names my-model-310: not there"]),
        ("/elsewhere/my-model-300", ["it names /elsewhere/my-model-300: not there"]),
        (r"C:\\run\\my-model-300", [r"it names C:\run\my-model-300: not there"]),
        ("../model/my-model-300", []),
    ],
)
def test_what_a_state_file_says_wrongly(
    newest: str, problems: list[str], run: Path, verify: Verify
) -> None:
    _write(run, newest, *NAMES)
    assert verify(run)["state"]["problems"] == problems


def test_a_trainer_does_not_name_what_has_no_manifest(run: Path, verify: Verify) -> None:
    (run / "my-model-300.manifest").unlink()
    for named in (NAMES, NAMES[:3]):
        _write(run, named[-1], *named)
        assert verify(run)["state"]["ok"]


def _save_all(folder: Path, *names: str, **saver_options: Any) -> Path:
    """Saves a variable under some names with a stock Saver."""
    folder.mkdir()
    for name in names:
        with stock.checkpoint(folder / name, **saver_options):
            _variable("w", 2)
    return folder


def test_a_strangers_names_what_it_likes_if_it_is_there(tmp_path: Path, verify: Verify) -> None:
    folder = _save_all(tmp_path / "stock", "a-1", "a-2")
    _write(folder, "a-1", "a-1")
    found = verify(folder)
    assert found["ok"]
    assert found["state"]["remarks"] == ["its newest is a-1, that of the folder is a-2"]


V1_IN_SHARDS = {"write_version": v1.train.SaverDef.V1, "sharded": True}


@pytest.mark.parametrize(
    ("names", "options"), [(["a-9", "a-10"], {}), (["m"], V1_IN_SHARDS)], ids=["", "v1"]
)
def test_a_strangers_state_file_is_made_from_what_is_there(
    names: list[str], options: dict[str, Any], tmp_path: Path, verify: Verify
) -> None:
    """The first format in shards is named as a pattern. A folder may move."""
    folder = _save_all(tmp_path / "stock", *names, **options)
    before, theirs = {*folder.iterdir()}, tf.train.latest_checkpoint(str(folder))
    (folder / "checkpoint").unlink()
    assert verify(folder, "--repair")["ok"]
    assert {*folder.iterdir()} == before
    assert tf.train.latest_checkpoint(str(folder)) == theirs
    moved = str(folder.rename(folder.parent / "moved"))
    assert tf.train.latest_checkpoint(moved) == f"{moved}/{os.path.basename(theirs or '')}"


@pytest.mark.parametrize("name", ['quote"d', "größe", "new\nline", ""])
def test_any_name_can_stand_in_it(name: str, tmp_path: Path, verify: Verify) -> None:
    folder = _save_all(tmp_path / "stock", "plain")
    for file in folder.glob("plain.*"):
        file.rename(folder / file.name.replace("plain", name, 1))
    (folder / "checkpoint").write_bytes(b"")
    assert verify(folder, "--repair")["ok"]
    newest = tf.train.latest_checkpoint(str(folder))
    assert newest == f"{folder}/{name or './'}"


# Other repairs, and those who train meanwhile.


@pytest.mark.parametrize("step", ["write_file", "rename", "remove"])
def test_a_repair_that_fails_loses_nothing_and_is_done_by_the_next(
    step: str, run: Path, tool: Tool, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "checkpoint").write_bytes(b"damaged")
    (run / "my-model-310.manifest.tmp").write_bytes(b"")
    before = _contents(run)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_io, step, full)
        ended = tool("verify", run, "--repair")
    assert ended.code == 1
    assert re.search("cannot be repaired: .*No space left", ended.err)
    del before["my-model-310.manifest.tmp"]
    assert before.items() <= _contents(run).items()
    assert verify(run, "--repair")["ok"]


def test_a_folder_that_is_trained_is_refused_and_one_checkpoint_of_it_is_not(
    run: Path, tool: Tool
) -> None:
    with FolderLock(str(run)):
        for arguments in ([], ["--repair"]):
            ended = tool("verify", run, *arguments)
            assert (ended.code, ended.out) == (1, "")
            assert f"{run} is in use by process " in ended.err
            assert ended.err.endswith(" or verify one checkpoint alone, by its prefix")
        assert tool("verify", run / "my-model-290").code == 0


def test_damage_in_a_folder_in_which_a_run_begins_is_refused_too(
    run: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "my-model-280.index").write_bytes(b"")
    holders = [None, "process 7 on host"]
    monkeypatch.setattr("checkpoints.lock.holder", lambda _: holders.pop(0))
    assert "is in use by process 7 on host" in tool("verify", run).err
