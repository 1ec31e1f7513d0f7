"""Reading, listing and writing what may not be there, and digests of samples."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import files
from data.files import digest_of_file, digest_of_files
from errors import DataError, RefusedError, UserError
from tests.data.conftest import error_line


def test_bytes_up_to_the_limit_and_what_is_missing_is_not_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ä b.bin"
    path.write_bytes(b"\x00\r\n\xff")
    assert files.read_bytes(str(path), max_bytes=4) == b"\x00\r\n\xff"
    with error_line(r"ä b\.bin: holds 4 bytes; at most 3 are read"):
        files.read_bytes(str(path), max_bytes=3)
    with pytest.raises(DataError, match=r"none\.png: No such file"):
        files.read_bytes(f"{tmp_path}/none.png", max_bytes=10**6)
    with pytest.raises(RefusedError, match="s a directory"):
        files.read_bytes(str(tmp_path), max_bytes=10**6)
    with error_line(r"none\.png: .*No such file"), files.open_binary(f"{tmp_path}/none.png") as s:
        s.read()
    with error_line("none: "):
        files.list_folder(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^nowhere://x: .*no file system nowhere://"):
        files.exists("nowhere://x")
    os.mkfifo(tmp_path / "rows.npy")
    with error_line("no regular file"), files.open_binary(f"{tmp_path}/rows.npy"):
        pass


def test_lists_names_sorted_and_refuses_what_is_not_utf8(tmp_path: Path) -> None:
    for name in ("b", "a c", "ü"):
        (tmp_path / name).touch()
    (tmp_path / "B").mkdir()
    assert files.list_folder(str(tmp_path)) == ["B", "a c", "b", "ü"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).touch()
    with error_line(r"holds b.\\xff\.png., a name that is not UTF-8; rename it"):
        files.list_folder(str(tmp_path))


def test_writes_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    files.write_atomically(str(path), b"first")
    files.write_atomically(str(path), (bytes([n]) * n for n in range(4)))
    assert path.read_bytes() == b"\x01\x02\x02\x03\x03\x03"
    assert os.listdir(path.parent) == ["file"]
    with error_line("file/below: Not a directory"):
        files.write_atomically(str(path / "below"), b"")


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pieces of 10 bytes of a file; three files."""
    monkeypatch.setattr(files, "_SAMPLE_BYTES", 10)
    monkeypatch.setattr(files, "_SAMPLES_OF_A_FILE", 3)
    monkeypatch.setattr(files, "_SAMPLED_FILES", 3)


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 29, 30, 110])
def test_three_pieces_are_sampled_and_a_short_file_as_a_whole(length: int, tmp_path: Path) -> None:
    path, seen = tmp_path / "a", []
    path.write_bytes(bytes(length))
    digest = digest_of_file(str(path))
    for position in range(length):
        path.write_bytes(bytes(position) + b"1" + bytes(length - position - 1))
        seen += [position] if digest_of_file(str(path)) != digest else []
    pieces = [*range(10), *range(50, 60), *range(100, 110)]
    assert seen == (pieces if length == 110 else [*range(length)])
    for name, size in (("b", length), ("c", length + 1)):  # Its place is no part of it.
        (tmp_path / name).write_bytes(bytes(size))
        assert (digest_of_file(str(tmp_path / name)) == digest) == (size == length)


NAMES = [f"{letter}/{number}" for letter in "ab" for number in range(4)]


def digest_in(folder: Path) -> str:
    return digest_of_files([str(folder / name) for name in NAMES], NAMES)


@pytest.mark.usefixtures("small_samples")
def test_names_sizes_and_some_starts_tell_folders_apart(tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name in NAMES:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(name.encode() * 5)
    digest, noticed = digest_in(here), []
    shutil.copytree(here, tmp_path / "there")
    os.utime(tmp_path / "there" / NAMES[0], (0, 0))
    assert digest_in(tmp_path / "there") == digest
    for name in NAMES:
        path = here / name
        content = path.read_bytes()
        path.write_bytes(b"?" + content[1:])
        noticed.append(digest_in(here) != digest)
        path.write_bytes(content + b"?")
        assert digest_in(here) != digest
        path.write_bytes(content)
    assert np.flatnonzero(noticed).tolist() == [0, 3, 7]
    assert digest_in(here) == digest
    assert digest_of_files([str(here / name) for name in NAMES], [*NAMES[:-1], "b/9"]) != digest
    (here / NAMES[2]).write_bytes(b"")
    empty = digest_in(here)
    (here / NAMES[2]).unlink()
    assert digest_in(here) not in (empty, digest)
