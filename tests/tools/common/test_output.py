import json

import pytest

from tools.command import format_bytes, show, table


def test_columns_stand_under_each_other() -> None:
    rows = [("w", "[3]", "7"), ("bias", "[]", "1234")]
    assert table(rows, right=[2], indent=2) == ["  w     [3]     7", "  bias  []   1234"]


def test_no_rows_are_no_lines() -> None:
    assert table([]) == []


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_bytes_are_said_in_units(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_text_is_for_people_and_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"name": "w\x1b[2J", "count": 2}
    show(record, lambda r: f"{r['name']} {r['count']}", "text")
    assert capsys.readouterr().out == "w\\u001b[2J 2\n"
    show(record, str, "json")
    assert json.loads(capsys.readouterr().out) == record


def test_a_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        show({"value": float("nan")}, str, "json")
