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


AB, OURS = ["a-20", "b-9", "a-9"], ["b", "my-model-4", "my-model-30"]


@pytest.mark.parametrize(
    ("written", "ordered", "named", "newest"),
    [
        (["a-20", "a-100", "a-9"], ["a-9", "a-20", "a-100"], "a-9", "a-100"),
        (["a-20", "a-9", "a"], ["a-20", "a-9", "a"], None, "a"),
        (AB, AB, "b-9", "b-9"),
        (AB, AB, "gone", "a-9"),
        (AB, AB, None, "a-9"),
        (
            ["my-model-30", "my-model-4", "b"],
            ["b", "my-model-4", "my-model-30"],
            "b",
            "my-model-30",
        ),
        ([], [], "a", None),
    ],
    ids=["by step", "one without a step", "runs", "lost", "no state file", "ours last", "none"],
)
def test_the_order_and_the_newest(
    written: list[str], ordered: list[str], named: str | None, newest: str | None, tmp_path: Path
) -> None:
    """By time where there is no one run; then a state file decides, unless one is ours."""
    for age, name in enumerate(written):
        (tmp_path / f"{name}.index").touch()
        os.utime(tmp_path / f"{name}.index", (1e9 + age, 1e9 + age))
    entries = list_folder(str(tmp_path))
    assert [entry.name for entry in entries] == ordered
    found = newest_of(entries, named)
    assert (found and found.name) == newest
