"""Which checkpoints are told from the names in a folder."""

from pathlib import Path

import pytest

from tools.folder_entries import list_folder, named_entry, stem_and_step

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
