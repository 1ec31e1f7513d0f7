"""What is said of a path that stands for no model."""

import tarfile
from pathlib import Path

import pytest

from errors import CheckpointError
from metagraph import opening
from metagraph.opening import find_model


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _message(path: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_model(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_subfolders_with_a_model_are_named(tmp_path: Path) -> None:
    _touch(
        tmp_path, "a/m.meta", "b/x.txt", "export/17/saved_model.pb", "export/17/variables/v.index"
    )
    _touch(tmp_path, "far/too/deep/m.meta")
    assert _message(tmp_path).endswith(
        f"name a folder of it that does: {tmp_path}/a, {tmp_path}/export/17"
    )


def test_only_so_many_subfolders_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, *(f"{number:03d}/x" for number in range(9)), "999/m.meta")
    looked: list[str] = []
    monkeypatch.setattr(opening, "_holds_graph", looked.append)  # Which returns nothing: no model.
    monkeypatch.setattr(opening, "_MAX_FOLDERS", 5)
    assert "holds no model" in _message(tmp_path)
    assert len(looked) == 5


def test_a_loop_of_links_and_what_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "away").symlink_to(tmp_path / "nowhere")
    assert "holds no model: no .meta" in _message(tmp_path)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    _touch(tmp_path, "in/m.meta")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in/m.meta", "m.meta")
    (tmp_path / "in/m.meta").unlink()
    assert _message(tmp_path).endswith("; model.tar.gz is compressed with gzip; unpack it first")
    assert "is compressed with gzip; unpack it first" in _message(tmp_path / "model.tar.gz")


def test_variables_beside_a_renamed_graph(tmp_path: Path) -> None:
    _touch(tmp_path, "m.index", "graph.meta")
    expected = f"--meta={tmp_path}/graph.meta --ckpt={tmp_path}/m"
    for path in (tmp_path / "m", tmp_path / "m.meta", tmp_path / "m.index"):
        assert _message(path).endswith(expected)
    _touch(tmp_path, "other.meta")
    assert _message(tmp_path / "m").endswith(
        f"(there is graph.meta, other.meta): --meta=<the .meta of its graph> --ckpt={tmp_path}/m"
    )


def test_the_newest_step_was_saved_without_its_graph(tmp_path: Path) -> None:
    _touch(tmp_path, "my-model-10.index", "my-model-10.meta", "my-model-20.index")
    assert _message(tmp_path).endswith(
        f"--meta={tmp_path}/my-model-10.meta --ckpt={tmp_path}/my-model-20"
    )


def test_the_nearest_names_come_first(tmp_path: Path) -> None:
    _touch(tmp_path, "alpha.meta", "model-19.meta", "model-20.meta", "notes.txt", "modle/x")
    found = _message(tmp_path / "model-2.meta")
    assert found.endswith("beside it there is model-20.meta, model-19.meta, alpha.meta")
    assert _message(tmp_path / "model").endswith("alpha.meta, modle")
    assert "frozen.pb; beside it" in _message(tmp_path / "frozen.pb")


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "model1/m.meta")
    assert _message(tmp_path / "modl1" / "a" / "m.meta").endswith(
        f": there is no folder {tmp_path}/modl1, there is {tmp_path}/model1"
    )
    monkeypatch.chdir(tmp_path)
    assert _message("modl1/m.meta").endswith(": there is no folder modl1, there is model1")
    assert _message("zzz/m.meta").endswith(": there is no folder zzz")
