"""Rows of text, compared with the bytes that were written."""

from pathlib import Path

import pytest

from errors import DataError, PredictionError
from prediction.rows import read_csv_texts, read_lines


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\n\r\nb", [b"a", b"", b"b"]),
        (b"\xff\0\n", [b"\xff\0"]),  # Any bytes, a null at the end too.
    ],
)
def test_lines(tmp_path: Path, content: bytes, lines: list[bytes]) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_lines(f"{tmp_path}/a.txt", 100).tolist() == lines


def test_an_empty_or_too_long_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(PredictionError, match="has no rows"):
        read_lines(f"{tmp_path}/a.txt", 100)
    (tmp_path / "a.txt").write_bytes(b"x" * 101)
    with pytest.raises(DataError, match="holds 101 bytes; at most 100 are read"):
        read_lines(f"{tmp_path}/a.txt", 100)


def test_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,"b\nc"\n\n"d ""e""",\n', "utf-8-sig")
    found = read_csv_texts(f"{tmp_path}/a.csv", 100).tolist()
    assert found == [[b"a", b"b\nc"], [b'd "e"', b""]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n\nc\n", "line 3: expected 2 cells, found 1"),
        (b"a,b\n" + b"x" * 200_000 + b",\n", "line 2: field larger than field limit"),
        (b"\xff", "is no text in UTF-8"),
        (b"\n\n", "has no rows"),
    ],
)
def test_what_is_no_table_of_texts(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(PredictionError, match=message):
        read_csv_texts(f"{tmp_path}/a.csv", 10**6)
