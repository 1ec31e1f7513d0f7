"""Rules over names, and the files of a new checkpoint."""

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import file_io
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, ToolError
from tests.prediction import stock
from tools.command import Rename, new_names, plain_rename, select
from tools.editing import check_prefix, commit, keys_in_order, plan_tensors, write_tensors

KEYS = ["conv1/w", "conv1/w/Adam", "conv10/w", "w", "global_step"]


@pytest.mark.parametrize(
    ("only", "drop", "slots", "kept"),
    [
        ([], [], [], KEYS),
        (["^conv1/"], [], [], ["conv1/w", "conv1/w/Adam"]),
        (["^conv1/", "step"], [], [], ["conv1/w", "conv1/w/Adam", "global_step"]),
        ([], ["w$"], [], ["conv1/w/Adam", "global_step"]),
        (["conv"], ["0"], ["conv1/w/Adam"], ["conv1/w"]),
        (["conv", "fc"], [], [], r"--only=fc is found in no name of the 5"),
        ([], ["fc"], [], r"--drop=fc is found in no name"),
        (["conv"], ["w"], [], "nothing is left of the 5 variables"),
    ],
)
def test_what_is_kept(
    only: list[str], drop: list[str], slots: list[str], kept: list[str] | str
) -> None:
    """Or why nothing is: patterns of no use are refused."""
    if isinstance(kept, str):
        with pytest.raises(ToolError, match=kept):
            select(KEYS, slots, only, drop)
    else:
        assert select(KEYS, slots, only, drop) == kept


@pytest.mark.parametrize(
    ("rules", "new"),
    [
        ([plain_rename("w=v")], "conv1/w conv1/w/Adam conv10/w v global_step"),
        ([plain_rename("conv1/=a/b/")], "a/b/w a/b/w/Adam conv10/w w global_step"),
        (
            [plain_rename("conv1/=layer/"), plain_rename("layer/=last/")],
            "last/w last/w/Adam conv10/w w global_step",
        ),
        (
            [plain_rename("=net/")],
            "net/conv1/w net/conv1/w/Adam net/conv10/w net/w net/global_step",
        ),
        ([plain_rename(r"w=a\1")], r"conv1/w conv1/w/Adam conv10/w a\1 global_step"),
        (
            [plain_rename("conv1/w=a"), plain_rename("w=b")],
            "a conv1/w/Adam conv10/w b global_step",
        ),
    ],
)
def test_what_they_are_called(rules: list[Rename], new: str) -> None:
    assert [*new_names(KEYS, rules).values()] == new.split()


def test_a_scope_is_taken_away_and_two_names_are_exchanged_by_a_third() -> None:
    assert new_names(["conv1/w", "b"], [plain_rename("conv1/=")]) == {"conv1/w": "w", "b": "b"}
    rules = [plain_rename(text) for text in ("a=c", "b=a", "c=b")]
    assert new_names(["a", "b"], rules) == {"a": "b", "b": "a"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (plain_rename("w=global_step"), "w and global_step would both be called global_step"),
        (plain_rename("conv1/=conv10/"), "conv1/w and conv10/w would both be called conv10/w"),
        (plain_rename("v=u"), "--rename=v=u is for no name that is kept"),
        (plain_rename("w=/u"), "w would be called '/u', which is no name"),
    ],
)
def test_clashes_and_rules_of_no_use_are_refused(rule: Rename, message: str) -> None:
    with pytest.raises(ToolError, match=f"^{re.escape(message)}$"):
        new_names(KEYS, [rule])


@pytest.mark.parametrize("text", ["", "w", "=", "=v", "/=a/", "a/=b", "a=b/", "a="])
def test_rules_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="old=new"):
        plain_rename(text)


# The values of a new checkpoint, and its files: in place and whole, or not there.


v1 = tf.compat.v1

SUFFIXES = (".data-00000-of-00001", ".index", ".meta")
MADE = {"checkpoint", *(f"model{suffix}" for suffix in SUFFIXES)}


def _fill(prefix: str, text: str = "new") -> None:
    for suffix in SUFFIXES:
        Path(prefix + suffix).write_text(text)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_files_are_moved_into_a_folder_that_is_made(tmp_path: Path) -> None:
    """A state file that is there stays."""
    _, names = commit(f"{tmp_path}/a/b/model", _fill)
    assert names == sorted(MADE)
    assert _names(tmp_path / "a/b") == MADE
    assert tf.train.latest_checkpoint(f"{tmp_path}/a/b") == f"{tmp_path}/a/b/model"
    assert str(tmp_path) not in (tmp_path / "a/b/checkpoint").read_text()
    (tmp_path / "checkpoint").write_text("mine")
    assert "checkpoint" not in commit(f"{tmp_path}/model", _fill)[1]
    assert (tmp_path / "checkpoint").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00002", ".meta", ".manifest"])
def test_what_is_there_is_replaced_only_if_asked_for(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model{suffix}").write_text("old")
    (tmp_path / "model-2.index").write_text("another")
    with pytest.raises(ToolError, match=f"model{suffix} is there; --overwrite replaces it"):
        check_prefix(f"{tmp_path}/model", [], overwrite=False)
    check_prefix(f"{tmp_path}/model", [], overwrite=True)
    commit(f"{tmp_path}/model", _fill)
    assert _names(tmp_path) == {"model-2.index", *MADE}
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


def test_wherever_it_is_interrupted_an_index_has_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for steps in range(9):  # Four files to remove, three and the state file to rename.
        folder = tmp_path / str(steps)
        folder.mkdir()
        for suffix in (*SUFFIXES, ".manifest"):
            (folder / f"my-model-3{suffix}").write_text("old")
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            _interrupt_after(steps, patch)
            commit(f"{folder}/my-model-3", _fill)
        files = {p.suffix: p for p in folder.glob("my-model-3.*")}
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
@pytest.mark.parametrize("output", ["{}/model", "model", "./model", "link/model"])
def test_the_source_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, overwrite: bool
) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError, match="is the source, which is never touched"):
        check_prefix(output.format(tmp_path), ["other", f"{tmp_path}/model"], overwrite)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        *((name, "is no prefix of a checkpoint: add") for name in ("", ".", "folder/", "folder")),
        ("checkpoint", "is no prefix of a checkpoint: add a name"),
        ("a/model.meta", "is a file's name: expected a/model$"),
    ],
)
def test_what_is_no_prefix_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError, match=message):
        check_prefix(output, [], overwrite=True)


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    def killed(prefix: str) -> None:
        _fill(prefix, "half")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        commit(f"{tmp_path}/model", killed)
    os.waitpid(child, 0)
    aside = tmp_path / ".model.being-edited"
    assert _names(aside) == {".lock", *(f"model{suffix}" for suffix in SUFFIXES)}
    (aside / "model.data-00001-of-00002").touch()
    commit(f"{tmp_path}/model", _fill)
    assert _names(tmp_path) == MADE
    assert (tmp_path / "model.index").read_text() == "new"


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    def meanwhile(prefix: str) -> None:
        _fill(prefix)
        with pytest.raises(CheckpointError, match=r"is in use by process \d+ .* another --output$"):
            commit(f"{tmp_path}/model", _fill)
        commit(f"{tmp_path}/other", lambda other: _fill(other, "other"))

    commit(f"{tmp_path}/model", meanwhile)
    assert (tmp_path / "model.index").read_text() == "new"
    assert (tmp_path / "other.index").read_text() == "other"


def test_a_disk_without_a_place_for_the_lock_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ToolError, match=f"--output={tmp_path}/m: .*No space left"):
        commit(f"{tmp_path}/m", _fill)
    assert _names(tmp_path) == set()


def _write(prefix: str, target: str, cast: tf.DType | None = None) -> None:
    reader = CheckpointReader(prefix)
    names = {key: f"n/{key}" for key in keys_in_order(reader)}
    write_tensors(reader, plan_tensors(reader, names, cast), target)


def test_values_are_the_same_and_in_the_same_order(tmp_path: Path) -> None:
    """Of three kinds; `b` was made, and so lies, before `a`."""
    with stock.checkpoint(tmp_path / "model"):
        v1.get_variable("b", initializer=np.linspace(-3, 3, 20, dtype=np.float32))
        v1.get_variable("a", initializer=np.arange(6).reshape(2, 3))
        v1.get_variable("text", initializer=np.array([b"x", b"", b"long"], object))
    prefix, target = f"{tmp_path}/model", f"{tmp_path}/new"
    _write(prefix, target)
    old, new = tf.train.load_checkpoint(prefix), tf.train.load_checkpoint(target)
    assert new.get_variable_to_shape_map() == {"n/a": [2, 3], "n/b": [20], "n/text": [3]}
    for key in ("a", "b", "text"):
        one, other = old.get_tensor(key), new.get_tensor(f"n/{key}")
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    data = [Path(f"{path}.data-00000-of-00001").read_bytes() for path in (prefix, target)]
    assert data[0] == data[1]


def test_what_overflows_is_refused_by_name(tmp_path: Path) -> None:
    prefix = f"{tmp_path}/model"
    with stock.checkpoint(Path(prefix)):
        v1.get_variable("small", initializer=np.array([65504, np.inf, np.nan], np.float32))
        v1.get_variable("large", initializer=np.array([1, -70000, 80000], np.float32))
    with pytest.raises(ToolError, match=r"large holds -70000, too large for float16 \(2 such of 3"):
        _write(prefix, f"{tmp_path}/new", tf.float16)
    _write(prefix, f"{tmp_path}/new", tf.bfloat16)
    value = tf.train.load_checkpoint(f"{tmp_path}/new").get_tensor("n/small")
    assert [float(number) for number in value[:2]] == [65536, np.inf]
    assert np.isnan(value[2])
