"""What is told to be left of a save, and what of it is cleared."""

import os
from pathlib import Path

import pytest

from checkpoints.lock import FolderLock
from tools.folder_entries import clear, find_leftovers

HEX = "0123456789abcdef" * 2


def _old(path: Path) -> Path:
    """As it is once nobody has written to it for long."""
    for entry in [path, *path.rglob("*")]:
        os.utime(entry, (1e9, 1e9))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "m.data-00000-of-00001.tempstate123",
        "m.index.tempstate1",
        f"m.meta.tmp{HEX}",
        f"checkpoint.tmp{HEX}",
    ],
)
def test_a_file_of_a_saver_is_one_once_it_is_old(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"half")
    (young,) = find_leftovers(str(tmp_path))
    assert (young.names, young.is_recent) == ((name,), True)
    _old(tmp_path / name)
    (found,) = find_leftovers(str(tmp_path))
    assert not found.is_recent
    clear(str(tmp_path), found)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_of_a_saver_is_as_young_as_its_youngest_file(tmp_path: Path) -> None:
    parts = tmp_path / f"m_temp_{HEX}"
    parts.mkdir()
    (parts / "part-00000-of-00002.index").write_bytes(b"half")
    os.utime(parts, (1e9, 1e9))
    assert [leftover.is_recent for leftover in find_leftovers(str(tmp_path))] == [True]
    _old(parts)
    (found,) = find_leftovers(str(tmp_path))
    clear(str(tmp_path), found)
    assert [*tmp_path.iterdir()] == []


def test_ours_are_known_by_their_pending_manifest(tmp_path: Path) -> None:
    names = ["my-model-7.data-00000-of-00001", "my-model-7.index", "my-model-7.manifest.tmp"]
    for name in [*names, "my-model-8.index", "my-model-6.data-00000-of-00001", "checkpoint.tmp"]:
        (tmp_path / name).write_bytes(b"")
    found = find_leftovers(str(tmp_path))
    assert [(f.names, f.step, f.is_recent) for f in found] == [
        (tuple(names), 7, False),
        (("checkpoint.tmp",), None, False),
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
        (found,) = find_leftovers(str(tmp_path))
        assert (found.names, found.is_recent) == ((aside.name,), True)
        _old(aside)
        assert [leftover.is_recent for leftover in find_leftovers(str(tmp_path))] == [True]
    (found,) = find_leftovers(str(tmp_path))
    assert not found.is_recent
    clear(str(tmp_path), found)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "name",
    [".m.being-edited", "m.index", "notes.tmp", "m.tmp", "tempstate1", f"x{HEX}", "a_temp_b"],
)
def test_other_files_are_none(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert find_leftovers(str(tmp_path)) == []
