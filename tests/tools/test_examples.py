"""The commands that the help of each tool gives run as they stand there, on a fresh model1."""

import ast
import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.tools.conftest import Tool

PROJECT = Path(__file__).resolve().parents[2]
_COMMAND = re.compile(r"^  python -m tools\.(\w+) (.*)$", re.MULTILINE)


def _all_examples() -> list[list[str]]:
    """Each example of a help: the tool's name and its arguments."""
    found = []
    for path in sorted(PROJECT.glob("tools/[!_]*.py")):
        source = path.read_text()
        if '__name__ == "__main__"' not in source:
            continue  # What a command is made of.
        examples = _COMMAND.findall(ast.get_docstring(ast.parse(source)) or "")
        assert examples, f"{path.name} has no example"
        found += [[name, *shlex.split(rest)] for name, rest in examples]
    return found


@pytest.fixture
def fresh(cnn_run: Path, linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a user who has just trained `model` and `model1`."""
    shutil.copytree(cnn_run, tmp_path / "model1")
    shutil.copytree(linear_run, tmp_path / "model")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("example", _all_examples(), ids=" ".join)
def test_it_runs_as_it_stands(tool: Tool, example: list[str]) -> None:
    name, *arguments = example
    assert hasattr(importlib.import_module(f"tools.{name}"), "main")
    ended = tool(name, *arguments)
    assert ended.code == 0, ended.err
    assert ended.out
