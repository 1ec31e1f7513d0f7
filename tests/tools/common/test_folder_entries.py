"""What is told from the names in a folder: checkpoints and their order."""

import os
from pathlib import Path

import pytest

from tools.folder_entries import list_folder, newest_of

DATA = ".data-00000-of-00001"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m.index", f"m{DATA}", "m.meta"], ["m"]),
        (["m.index"], ["m"]),
        ([f"m{DATA}"], ["m"]),
        (["m", "m.meta"], ["m"]),
        (["m-00000-of-00002", "m-00001-of-00002", "m.meta"], ["m-?????-of-00002"]),
        (["rows-00000-of-00002", "rows-00001-of-00002"], []),
        (["m.meta", "m/"], []),
        (["m.manifest", "my-model-7.meta", "my-model-8.manifest.tmp"], []),
        (["my-model-7.manifest"], ["my-model-7"]),
        (["my-model-7.manifest.tmp", "my-model-7.index", f"my-model-7{DATA}"], []),
        ([f"my-model-7{DATA}", "my-model-7.meta"], ["my-model-7"]),
        ([".index", DATA, ".meta"], ["./"]),
        (["readme.md", "checkpoint", "checkpoint.tmp", ".lock", "events.out.tfevents.1"], []),
    ],
)
def test_what_counts_as_a_checkpoint(names: list[str], found: list[str], tmp_path: Path) -> None:
    """By the name that a state file calls it."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert [entry.state_name for entry in list_folder(str(tmp_path))] == found


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
    assert [entry.name for entry in list_folder(str(tmp_path))] == ordered


@pytest.mark.parametrize(
    ("written", "named", "newest"),
    [
        (["a-1", "a-2"], "a-1", "a-2"),
        (["a-1", "b-2"], "a-1", "a-1"),
        (["a-1", "b-2"], "gone", "b-2"),
        (["a-1", "b-2"], None, "b-2"),
        (["my-model-1", "b-2"], "b-2", "my-model-1"),
        ([], "a", None),
    ],
)
def test_several_runs_of_strangers_are_decided_by_the_state_file(
    written: list[str], named: str | None, newest: str | None, tmp_path: Path
) -> None:
    _write(tmp_path, *written)
    found = newest_of(list_folder(str(tmp_path)), named)
    assert (found and found.name) == newest
