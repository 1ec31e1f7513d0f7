"""Versions of a model: numbered, never replaced, and never half there."""

import os
from pathlib import Path

import pytest

from errors import CheckpointError, ToolError
from tools.export_saved_model import choose_version, new_version


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], 1),
        (["1"], 2),
        (["3", "10"], 11),
        (["7.being-written", "x1", ".2"], 1),
        (["0"], 1),
    ],
)
def test_the_next_version(tmp_path: Path, there: list[str], expected: int) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    assert choose_version(str(tmp_path), None) == expected


def test_a_folder_that_is_not_there_has_no_versions(tmp_path: Path) -> None:
    assert choose_version(str(tmp_path / "new"), None) == 1
    assert choose_version(str(tmp_path / "new"), 5) == 5


def test_a_version_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    with pytest.raises(ToolError, match="leave out --version for the next one, 3"):
        choose_version(str(tmp_path), 2)


def test_a_file_is_no_folder_of_versions(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(ToolError, match="is a file"):
        choose_version(str(tmp_path / "m"), None)


def test_until_it_is_whole_it_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "1.being-written").mkdir()
    (tmp_path / "1.being-written" / "left over").write_text("")
    with new_version(str(tmp_path), 1) as folder:
        assert not (tmp_path / "1").exists()
        assert os.listdir(folder) == []
        (Path(folder) / "file").write_text("whole")
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "file").read_text() == "whole"


def _fails(folder: str) -> None:
    with new_version(folder, 1) as path:
        (Path(path) / "file").write_text("half")
        raise ToolError("failed")


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new"):
        with pytest.raises(ToolError, match="failed"):
            _fails(str(folder))
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(tmp_path / "there") == []


def test_one_export_a_folder(tmp_path: Path) -> None:
    with new_version(str(tmp_path), 1) as folder:
        (Path(folder) / "file").write_text("first")
        with pytest.raises(CheckpointError, match=r"in use by process .* another --output"):
            _fails(str(tmp_path))
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "file").read_text() == "first"


def test_one_that_came_in_between_stays(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "file").write_text("theirs")
    with (
        pytest.raises(ToolError, match="written by someone else"),
        new_version(str(tmp_path), 1) as folder,
    ):
        (Path(folder) / "file").write_text("ours")
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "file").read_text() == "theirs"
