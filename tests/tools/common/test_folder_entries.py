"""What is told from the names in a folder: checkpoints, their order, leftovers."""

import os
from pathlib import Path

import pytest

from checkpoints.lock import FolderLock
from tools.folder_entries import (
    Leftover,
    clear,
    find_leftovers,
    in_order,
    list_folder,
    named_entry,
    newest_of,
    stem_and_step,
)

DATA = ".data-00000-of-00001"


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m.index", f"m{DATA}", "m.meta"], ["m"]),
        (["m.index"], ["m"]),
        ([f"m{DATA}"], ["m"]),
        (["m", "m.meta"], ["m"]),
        (["m-00000-of-00002", "m-00001-of-00002", "m.meta"], ["m"]),
        (["rows-00000-of-00002", "rows-00001-of-00002"], []),
        (["m.meta"], []),
        (["m.manifest"], []),
        (["my-model-7.manifest"], ["my-model-7"]),
        (["my-model-7.manifest.tmp", "my-model-7.index", f"my-model-7{DATA}"], []),
        ([f"my-model-7{DATA}", "my-model-7.meta"], ["my-model-7"]),
        ([".index", DATA, ".meta"], [""]),
        (["readme.md", "checkpoint", ".lock", "events.out.tfevents.1"], []),
    ],
)
def test_what_counts_as_a_checkpoint(names: list[str], found: list[str], tmp_path: Path) -> None:
    _touch(tmp_path, *names)
    assert [entry.name for entry in list_folder(str(tmp_path)).entries] == found


def test_ours_come_by_step_and_then_the_others(tmp_path: Path) -> None:
    names = ["my-model-10", "my-model-9", "m-10", "m-9", "best"]
    _touch(tmp_path, *(f"{name}.index" for name in names))
    found = [entry.name for entry in list_folder(str(tmp_path)).entries]
    assert found == ["my-model-9", "my-model-10", "best", "m-9", "m-10"]


def test_parts_of_no_checkpoint_are_strays(tmp_path: Path) -> None:
    _touch(tmp_path, "alone.meta", "m.index", "x.manifest", "my-model-7.manifest.tmp", "a.txt")
    _touch(tmp_path, "my-model-7.meta", "rows-00000-of-00002")
    assert list_folder(str(tmp_path)).strays == ("alone.meta", "x.manifest")


def test_the_graph_of_a_saved_models_variables_is_the_saved_model(tmp_path: Path) -> None:
    _touch(tmp_path, "saved_model.pb", "variables/variables.index", f"variables/variables{DATA}")
    whole, inner = list_folder(str(tmp_path)), list_folder(f"{tmp_path}/variables")
    named = named_entry(f"{tmp_path}/variables/variables")
    assert whole.is_saved_model
    assert inner.is_saved_model
    graphs = [whole.entries[0].graph, inner.entries[0].graph, named.graph]
    assert graphs == [f"{tmp_path}/saved_model.pb"] * 3
    assert {e.prefix for e in (*whole.entries, *inner.entries, named)} == {named.prefix}


def test_a_state_file_calls_shards_of_the_first_format_by_a_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "m-00000-of-00002", "m-00001-of-00002", "m.meta")
    assert list_folder(str(tmp_path)).entries[0].state_name == "m-?????-of-00002"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("m.ckpt-7", ("m.ckpt", 7)),
        ("m--1", ("m-", 1)),
        ("m", ("m", None)),
        ("a-1-b", ("a-1-b", None)),
    ],
)
def test_the_step_in_a_name(name: str, split: tuple[str, int | None]) -> None:
    assert stem_and_step(name) == split


def _write(folder: Path, *names: str) -> None:
    """Indexes, each a second younger than the one before it."""
    for age, name in enumerate(names):
        (folder / f"{name}.index").write_bytes(b"")
        os.utime(folder / f"{name}.index", (1e9 + age, 1e9 + age))


@pytest.mark.parametrize(
    ("written", "ordered"),
    [
        (["a-20", "a-100", "a-9"], ["a-9", "a-20", "a-100"]),
        (["a-20", "b-9", "a-9"], ["a-20", "b-9", "a-9"]),
        (["a-20", "a-9", "a"], ["a-20", "a-9", "a"]),
        (["my-model-30", "my-model-4", "a-50", "b"], ["a-50", "b", "my-model-4", "my-model-30"]),
    ],
    ids=["by step", "by time", "one without a step", "ours last"],
)
def test_the_order(written: list[str], ordered: list[str], tmp_path: Path) -> None:
    _write(tmp_path, *written)
    entries = list_folder(str(tmp_path)).entries
    assert [entry.name for entry in in_order(entries)] == ordered


@pytest.mark.parametrize(
    ("written", "named", "newest"),
    [
        (["a-1", "a-2"], "a-1", "a-2"),
        (["a-1", "b-2"], "a-1", "a-1"),
        (["a-1", "b-2"], "gone", "b-2"),
        (["a-1", "b-2"], None, "b-2"),
        (["my-model-1", "b-2"], "b-2", "my-model-1"),
    ],
)
def test_several_runs_of_strangers_are_decided_by_the_state_file(
    written: list[str], named: str | None, newest: str, tmp_path: Path
) -> None:
    _write(tmp_path, *written)
    found = newest_of(list_folder(str(tmp_path)).entries, named)
    assert found is not None
    assert found.name == newest


def test_of_none_there_is_no_newest() -> None:
    assert newest_of([], "a") is None


def test_ours_are_known_by_their_pending_manifest(tmp_path: Path) -> None:
    names = ["my-model-7.data-00000-of-00001", "my-model-7.index", "my-model-7.manifest.tmp"]
    for name in [*names, "my-model-8.index", "my-model-6.data-00000-of-00001", "checkpoint.tmp"]:
        (tmp_path / name).write_bytes(b"")
    found = find_leftovers(str(tmp_path))
    assert found == [
        Leftover(tuple(names), 7),
        Leftover(("checkpoint.tmp",)),
    ]
    for leftover in found:
        clear(str(tmp_path), leftover)
    kept = ["my-model-6.data-00000-of-00001", "my-model-8.index"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_a_folder_of_an_edit_is_one_once_nobody_holds_its_lock(tmp_path: Path) -> None:
    aside = tmp_path / ".m.being-edited"
    aside.mkdir()
    (aside / "model.index").write_bytes(b"half")
    with FolderLock(str(aside)):
        assert find_leftovers(str(tmp_path)) == []
    (found,) = find_leftovers(str(tmp_path))
    clear(str(tmp_path), found)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "name",
    [".m.being-edited", "m.index", "notes.tmp", "m.tmp", "m.index.tempstate1"],
)
def test_other_files_are_none(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert find_leftovers(str(tmp_path)) == []
