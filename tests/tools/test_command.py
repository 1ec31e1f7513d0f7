"""What all commands share: what they print, what they need, what they keep silent."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from errors import ToolError
from tests.tools.conftest import Tool, refused
from tools.command import as_pattern, check_installed, format_bytes, quiet, show, table


def test_columns_stand_under_each_other() -> None:
    rows = [("w\n", "[3]", "7"), ("bias", "[]", "1234")]
    lines = [r"  w\u000a  [3]     7", "  bias     []   1234"]
    assert table(rows, right=[2], indent=2) == lines
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


S3 = "s3://bucket/m"


@pytest.mark.parametrize(
    "command",
    [
        *((name, S3) for name in ("inspect_checkpoint", "inspect_graph", "verify")),
        *(("diff", S3, "{}"), ("diff", "{}", S3), ("report", f"--run={S3}", "--output=m.html")),
        *(("export", S3, f"--to={to}", "--output=m.onnx") for to in ("onnx", "saved_model")),
        *(("export", "{}", f"--to={to}", f"--output={S3}.npz") for to in ("saved_model", "npz")),
        *(("edit", S3, "--output=m", "--drop=w"), ("edit", "{}", f"--output={S3}", "--drop=w")),
        *(("freeze", S3, "--output=m.pb"), ("freeze", "{}", f"--output={S3}.pb")),
        *(("plot", "metrics", S3), ("plot", "filters", f"--meta={S3}")),
        *(
            ("plot", "metrics", "{}", f"--output={S3}.png"),
            ("inspect_graph", "{}", f"--as_text={S3}"),
        ),
    ],
)
def test_a_path_of_a_file_system_that_is_not_there(
    tool: Tool, linear_run: Path, command: Sequence[str]
) -> None:
    line = refused(tool, *(text.format(linear_run) for text in command))
    assert "TensorFlow has no file system s3:// here; copy" in line


def test_text_is_for_people_and_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"name": "w\x1b[2J", "count": 2}
    show(record, lambda r: f"{r['name']} {r['count']}", "text")
    assert capsys.readouterr().out == "w\\u001b[2J 2\n"
    show(record, str, "json")
    assert json.loads(capsys.readouterr().out) == record
    with pytest.raises(ValueError, match="JSON"):
        show({"value": float("nan")}, str, "json")


def test_a_pattern() -> None:
    assert as_pattern(r"^conv\d$").search("conv1") is not None
    for text in ("(", "a{99999999999}", 9999 * "(" + 9999 * ")"):
        with pytest.raises(ValueError, match=r"\w"):
            as_pattern(text)


def test_a_package_that_is_not_there_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_installed(["json", "numpy"], "plot", "a picture")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ToolError) as caught:
        check_installed(["json", "matplotlib"], "plot", "a picture")
    text = str(caught.value)
    assert text.startswith("a picture needs the packages of the extra `plot`: ")
    assert "pip install json matplotlib" in text


def test_all_that_is_written_in_quiet_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"from C++\n")
        os.write(2, b"from C++\n")
        print("from Python")
        print("from Python", file=sys.stderr)
        warnings.warn("of a package", UserWarning, stacklevel=1)
        logging.getLogger("tf2onnx").warning("of a logger")
    assert capfd.readouterr() == ("", "")


def test_after_quiet_all_is_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with pytest.raises(ZeroDivisionError), quiet():
        print(1 // 0)
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\n", "after\n")
    with pytest.raises(UserWarning):
        warnings.warn("an error again", UserWarning, stacklevel=1)
