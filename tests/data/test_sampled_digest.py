import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import files
from data.files import digest_of_file, digest_of_files


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pieces of 10 bytes of a file; three files."""
    monkeypatch.setattr(files, "_SAMPLE_BYTES", 10)
    monkeypatch.setattr(files, "_SAMPLES_OF_A_FILE", 3)
    monkeypatch.setattr(files, "_SAMPLED_FILES", 3)


def changed_at(path: Path, position: int) -> bool:
    """Whether the digest notices one other byte."""
    before = digest_of_file(str(path))
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    return digest_of_file(str(path)) != before


@pytest.mark.usefixtures("small_samples")
def test_the_first_the_middle_and_the_last_piece_are_sampled(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(110))
    seen = [position for position in range(110) if changed_at(path, position)]
    assert seen == [*range(10), *range(50, 60), *range(100, 110)]


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("length", [1, 9, 10, 11, 29, 30])
def test_a_short_file_is_read_as_a_whole(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(length))
    assert all(changed_at(path, position) for position in range(length))


@pytest.mark.parametrize("length", [0, 1, 100, 200_000])
def test_length_and_not_place_tells_files_apart(length: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(length))
    (tmp_path / "b").write_bytes(bytes(length))
    (tmp_path / "longer").write_bytes(bytes(length + 1))
    digest = digest_of_file(str(tmp_path / "a"))
    assert digest_of_file(str(tmp_path / "b")) == digest
    assert digest_of_file(str(tmp_path / "longer")) != digest


NAMES = [f"{letter}/{number}" for letter in "ab" for number in range(4)]


def digest_in(folder: Path) -> str:
    return digest_of_files([str(folder / name) for name in NAMES], NAMES)


@pytest.fixture
def eight_files(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(name.encode() * 5)
    return tmp_path / "here"


def test_files_may_move_together(eight_files: Path) -> None:
    digest = digest_in(eight_files)
    moved = eight_files.parent / "there"
    shutil.copytree(eight_files, moved)
    assert digest_in(moved) == digest
    os.utime(moved / NAMES[0], (0, 0))
    assert digest_in(moved) == digest


@pytest.mark.usefixtures("small_samples")
def test_all_sizes_and_some_starts_tell_folders_apart(eight_files: Path) -> None:
    digest = digest_in(eight_files)
    noticed = []
    for name in NAMES:
        path = eight_files / name
        content = path.read_bytes()
        path.write_bytes(b"?" + content[1:])
        noticed.append(digest_in(eight_files) != digest)
        path.write_bytes(content + b"?")
        assert digest_in(eight_files) != digest
        path.write_bytes(content)
    assert np.flatnonzero(noticed).tolist() == [0, 3, 7]
    assert digest_in(eight_files) == digest


def test_names_tell_folders_apart(eight_files: Path) -> None:
    paths = [str(eight_files / name) for name in NAMES]
    other = [*NAMES[:-1], "b/9"]
    assert digest_of_files(paths, NAMES) != digest_of_files(paths, other)


def test_a_file_that_is_gone_is_part_of_the_digest(eight_files: Path) -> None:
    (eight_files / NAMES[2]).write_bytes(b"")
    digest = digest_in(eight_files)
    (eight_files / NAMES[2]).unlink()
    assert digest_in(eight_files) != digest
