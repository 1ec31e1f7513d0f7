"""Which checkpoint of a folder is the newest, for all that tell of it."""

import os
from pathlib import Path

import pytest

from tools.folder_entries import in_order, list_folder, newest_of


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
