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
_COMMAND = re.compile(r"^  python -m tools\.(\w+) (.*(?:\\\n.*)*)$", re.MULTILINE)


def _examples() -> list[str]:
    """Each example of each tool's help, from its docstring: `name arguments`."""
    found = []
    for path in sorted(PROJECT.glob("tools/*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        commands = _COMMAND.findall(text)
        assert commands or path.stem == "__init__", f"{path.name} has no example"
        found += [f"{name} {arguments}".replace("\\\n", " ") for name, arguments in commands]
    return found


@pytest.fixture
def fresh(cnn_run: Path, linear_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a user who has just trained `model` and `model1`."""
    shutil.copytree(cnn_run, tmp_path / "model1")
    shutil.copytree(linear_run, tmp_path / "model")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("example", _examples())
def test_it_runs_as_it_stands(tool: Tool, example: str) -> None:
    name, *arguments = shlex.split(example)
    assert hasattr(importlib.import_module(f"tools.{name}"), "main")
    ended = tool(name, *arguments)
    assert ended.code == 0, ended.err
    assert ended.out
