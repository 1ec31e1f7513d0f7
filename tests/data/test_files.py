import os
from pathlib import Path

import pytest

from data import files
from errors import DataError, RefusedError
from tests.data.conftest import DataErrorLine


def test_reads_bytes_up_to_the_limit(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    path = tmp_path / "ä b.bin"
    path.write_bytes(b"\x00\r\n\xff")
    assert files.read_bytes(str(path), max_bytes=4) == b"\x00\r\n\xff"
    with data_error_line(r"ä b\.bin: holds 4 bytes; at most 3 are read"):
        files.read_bytes(str(path), max_bytes=3)


def test_missing_file_is_named(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line(r"none\.png: No such file"):
        files.read_bytes(str(tmp_path / "none.png"), max_bytes=1)
    with (
        data_error_line(r"none\.png: .*No such file"),
        files.open_binary(str(tmp_path / "none.png")) as stream,
    ):
        stream.read()


def test_folder_is_no_file(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line("is a directory|Is a directory"):
        files.read_bytes(str(tmp_path), max_bytes=10**6)


def test_what_is_missing_is_not_what_is_refused(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "none", DataError), (tmp_path, RefusedError)):
        with pytest.raises(DataError) as caught:
            files.read_bytes(str(path), max_bytes=10**6)
        assert type(caught.value) is kind


def test_unknown_file_system_is_named(data_error_line: DataErrorLine) -> None:
    with data_error_line("nowhere://x: .*nowhere"):
        files.exists("nowhere://x")


def test_lists_names_sorted(tmp_path: Path) -> None:
    for name in ("b", "a c", "ü"):
        (tmp_path / name).touch()
    (tmp_path / "B").mkdir()
    assert files.list_folder(str(tmp_path)) == ["B", "a c", "b", "ü"]


def test_missing_folder_is_named(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    with data_error_line("none: "):
        files.list_folder(str(tmp_path / "none"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_name_that_is_not_utf8_is_refused(tmp_path: Path, data_error_line: DataErrorLine) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).touch()
    with data_error_line(r"holds b.\\xff\.png., a name that is not UTF-8; rename it"):
        files.list_folder(str(tmp_path))


def test_writes_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    files.write_atomically(str(path), b"first")
    files.write_atomically(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    files.write_atomically(str(tmp_path / "file"), (bytes([n]) * n for n in range(4)))
    assert (tmp_path / "file").read_bytes() == b"\x01\x02\x02\x03\x03\x03"


def test_write_that_is_refused_names_the_file(
    tmp_path: Path, data_error_line: DataErrorLine
) -> None:
    (tmp_path / "file").touch()
    with data_error_line("file/below: .*not a directory"):
        files.write_atomically(str(tmp_path / "file" / "below"), b"")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.npy")
    with (
        pytest.raises(DataError, match="no regular file"),
        files.open_binary(f"{tmp_path}/rows.npy"),
    ):
        pass
