"""A dataclass whose fields are the flags of a command."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from absl import flags

from cli.fields import COMMAS, REPEATED, CommandLine, Together, each, flag, needs, nested, parse


@dataclass(frozen=True)
class _Pair:
    a: str = flag("The first.", path=True, positional=True)
    b: str = flag("The second.", path=True, positional=True)


@dataclass(frozen=True)
class _Either:
    a: str | None = flag("The one.", None, positional=True, instead="b")
    b: str | None = flag("The other.", None)


@dataclass(frozen=True)
class _Start:
    GROUP: ClassVar = "run"

    path: str = flag("Where from.", name="start", path=True)
    most: int = flag("How many.", 3, low=1)


@dataclass(frozen=True, kw_only=True)
class _Everything:
    GROUP: ClassVar = "data"
    CHECKS: ClassVar = (
        needs("sizes", "kind"),
        Together(("kind", "rate"), lambda kind, rate: kind != "b" or rate < 1, "b is slow"),
    )

    size: int = flag("In bytes.", 2, name="size_kb", low=1, high=9, convert=lambda n: n << 10)
    kind: str | None = flag("Of what.", None, choices=("a", "b"))
    rate: float = flag("How fast.", 0.5)
    names: tuple[str, ...] = flag("Which.", (), name="fetch", alias="outputs", many=COMMAS)
    sizes: tuple[int, ...] = flag(
        "Each.", (), many=REPEATED, check=each(int), convert=lambda texts: tuple(map(int, texts))
    )
    start: _Start | None = nested(_Start, optional=True, most=5)
    again: bool = flag("Once more.", False)
    ends: object = None


def _parse(*arguments: str) -> _Everything:
    return parse(_Everything, ["script.py", *arguments], ends="so")


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--size_kb=3", "--kind=a", "--sizes=1", "--sizes=2", "--fetch=x,y z", "--again"],
        ["--start=~/a b=#c", "--most=9", "--rate=1e-300", "--noagain"],
    ],
)
def test_a_file_of_the_flags_makes_the_same_request(given: list[str], tmp_path: Path) -> None:
    line = CommandLine(_Everything)
    line.take(["script.py", *given])
    (tmp_path / "flags").write_text("# A comment\n" + line.as_file())
    again = _parse(f"--flagfile={tmp_path / 'flags'}")
    assert again == _parse(*given)
    assert _parse(f"--flagfile={tmp_path / 'flags'}", "--size_kb=7").size == 7 << 10


def test_a_file_of_flags_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\xff\xfe\0--again\n")
    for name, told in (("data", "a file that is no text: "), ("gone", "No such file or directory")):
        with pytest.raises(flags.Error, match=told):
            _parse(f"--flagfile={tmp_path / name}")


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a ", "a\n--most=3"])
def test_what_a_file_of_flags_cannot_hold_makes_none(value: str) -> None:
    line = CommandLine(_Everything)
    line.take(["script.py", f"--start={value}"])
    assert line.as_file() == ""


def test_what_is_given_is_converted_and_what_is_not_is_the_default() -> None:
    assert _parse() == _Everything(ends="so")
    assert (_parse().size, _parse().start) == (2048, None)
    given = ("--size_kb=3", "--kind=a", "--sizes=1", "--sizes=2", "--outputs=x,y", "--again")
    config = _parse(*given, "--start=~/x")
    assert (config.size, config.kind, config.sizes) == (3072, "a", (1, 2))
    assert (config.names, config.again) == (("x", "y"), True)
    assert config.start == _Start(os.path.expanduser("~/x"), most=5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--size_kb=0"], r"--size_kb=0: 0 is not an integer in the range \[1, 9\]"),
        (["--kind=c"], r"--kind=c: value should be one of <a|b>"),
        (["--kind=b", "--rate=2"], "kind=b, rate=2.0: b is slow"),
        (["--sizes=x", "--kind=a"], "'x': invalid literal"),
        (["--sizes=1"], "--sizes needs --kind"),
        (["--start="], "must not be empty"),
        (["--size=1"], r"Unknown command line flag 'size'\. Did you mean: size_kb, sizes \?"),
        (["--kb=1"], r"Unknown command line flag 'kb'\. Did you mean: size_kb \?"),
        (["--zzz"], "Unknown command line flag 'zzz'$"),
    ],
)
def test_a_wrong_flag_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(flags.Error, match=message):
        _parse(*given)


@pytest.mark.parametrize(
    "arguments", [["x", "y"], ["--a=x", "y"], ["y", "--a=x"], ["--b=y", "x"], ["--b=y", "--a=x"]]
)
def test_flags_that_must_be_given_may_stand_without_their_names(arguments: list[str]) -> None:
    assert parse(_Pair, ["script.py", *arguments]) == _Pair("x", "y")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"missing: --a=\.\.\. and --b=\.\.\.; usage: python pair.py A B \[flags\], such as p"),
        (["x"], "missing: --b="),
        (["--b=y"], "missing: --a="),
        (["x", "y", "z"], "unexpected argument 'z'"),
        (["--a=x", "--b=y", "z"], "unexpected argument 'z'"),
        (["x", ""], "must not be empty"),
    ],
)
def test_what_is_missing_or_too_much_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(flags.Error, match=message):
        parse(_Pair, ["script.py", *arguments], "Compares.\n\n  python pair.py old new\n")


@pytest.mark.parametrize(
    ("arguments", "a", "b"),
    [(["x"], "x", None), (["--b=y"], None, "y"), (["x", "--b=y"], "x", "y")],
)
def test_one_of_two_flags_may_do(arguments: list[str], a: str | None, b: str | None) -> None:
    assert parse(_Either, ["script.py", *arguments]) == _Either(a, b)
    with pytest.raises(flags.Error, match=r"missing: --a=\.\.\. or --b=\.\.\.; usage"):
        parse(_Either, ["script.py"])


def test_the_help_has_groups_and_no_noise() -> None:
    text = CommandLine(_Everything, "Does it.\n\n  python do.py x\n").help()
    assert text.splitlines() == [
        *("Does it.", "", "  python do.py x", "", "usage: python do.py [flags]", ""),
        "data:",
        "  --size_kb: In bytes. (from 1 to 9; default: 2)",
        "  --kind: Of what. (one of a, b)",
        "  --rate: How fast. (default: 0.5)",
        "  --fetch: Which. (also --outputs)",
        "  --sizes: Each. (may be repeated)",
        "  --[no]again: Once more.",
        "",
        "run:",
        "  --start: Where from.",
        "  --most: How many. (1 or more; default: 5)",
    ]
