"""What a terminal must not obey."""

import json

import pytest

from cli.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\x1b[31mX", "x\\u001b[31mX"),
        ("a\rforged", "a\\u000dforged"),
        ("\x9b2J\x7f", "\\u009b2J\\u007f"),
        ("abc\u202edef", "abc\\u202edef"),
    ],
)
def test_what_it_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_stays_json() -> None:
    names = ["\x9b", "\x7f", "\u202e", "\x1b"]
    assert json.loads(printable(json.dumps(names, ensure_ascii=False))) == names


def test_all_else_stays() -> None:
    text = "class\tKätzchen 猫\n[0.1, 0.2] \\x1b\n"
    assert printable(text) == text
