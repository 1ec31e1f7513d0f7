"""Reading numbers from CSV files."""

from pathlib import Path

import numpy as np
import pytest

from errors import DataError, PredictionError
from prediction.rows import read_csv


def _write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        "1,2.5\n-3,4e-2\n",
        "1, 2.5\r\n-3 ,4e-2",
        "\ufeff1,2.5\n\n-3,0.04\n\n",
        "1,2.5\r-3,0.04\r",
        '"1","2.5"\r\n"-3",0.04',
    ],
)
def test_rows_of_numbers_are_read(tmp_path: Path, content: str) -> None:
    found = read_csv(_write(tmp_path / "a.csv", content), 1000)
    np.testing.assert_array_equal(found, np.array([[1, 2.5], [-3, 0.04]]))


def test_one_column_and_one_row_keep_their_shape(tmp_path: Path) -> None:
    assert read_csv(_write(tmp_path / "a.csv", "1\n2\n3\n"), 1000).shape == (3, 1)
    assert read_csv(_write(tmp_path / "b.csv", "1,2,3\n"), 1000).shape == (1, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n\n3\n", r"a\.csv, line 3: expected 2 numbers, found 1"),
        ("1,2\n3,4,5\n", r"line 2: expected 2 numbers, found 3"),
        ("1,2\n3,x\n", r"line 2, column 2: 'x' is no number"),
        ("a,b\n1,2\n", r"line 1, column 1: 'a' is no number .*no header"),
        ("1,2\n3,\n", r"line 2, column 2: '' is no number"),
        ("1,2\n# 3\n", r"line 2: expected 2 numbers"),
        ("1;2\n", r"line 1, column 1: '1;2' is no number"),
        ("1,1_0\n", r"line 1, column 2: '1_0' is no number"),
        ("1,2\r3\r", r"line 2: expected 2 numbers, found 1"),
        ('1,"2\n3,4\n', r"line 2, column 2: '2\\n3,4\\n' is no number"),
        ("1" * 140_000 + "x,2\n", r"line 1: field larger than field limit"),
        ("", "has no rows"),
        ("\n \n", "has no rows"),
        (b"\xff\xfe1\x00", "no text in UTF-8"),
    ],
)
def test_what_is_no_table_of_numbers_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(PredictionError, match=message) as caught:
        read_csv(_write(tmp_path / "a.csv", content), 200_000)
    assert "\n" not in str(caught.value)


def test_the_size_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 3"):
        read_csv(_write(tmp_path / "a.csv", "1,2,3"), 3)
