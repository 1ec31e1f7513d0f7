"""The README's table of what the classic tutorials show: each command runs, one after another."""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

from cli.run import parse

PROJECT = Path(__file__).resolve().parent.parent
_SECTION = "## From the tutorials to here"
_ROW = re.compile(r"^\| (?P<shown>[^|]+) \| `(?P<command>python [^`]+)` \|$", re.MULTILINE)
_TOPICS = 13


def _rows() -> dict[str, str]:
    """What a tutorial shows -> the command."""
    section = (PROJECT / "README.md").read_text(encoding="utf-8").split(_SECTION)[1]
    return {row["shown"]: row["command"] for row in _ROW.finditer(section.split("\n## ")[0])}


def _module(words: list[str]) -> tuple[ModuleType, list[str]]:
    """The script that a command line starts, and what it is given."""
    assert words[0] == "python"
    if words[1] == "-m":
        return importlib.import_module(words[2]), words[3:]
    return importlib.import_module(words[1].removesuffix(".py")), words[2:]


def _run(command: str) -> int:
    module, arguments = _module(shlex.split(command))
    values = flags.FlagValues()
    module.define_flags(values)
    parse(values, [module.__name__, *arguments], getattr(module, "POSITIONAL", ()))
    return int(module.main(values) or 0)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command prints, by what it shows; run in one folder, one after another."""
    import contextlib
    import io

    found: dict[str, str] = {}
    folder = tmp_path_factory.mktemp("tutorials")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for shown, command in _rows().items():
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert _run(command) == 0, command
            found[shown] = out.getvalue()
    found["folder"] = str(folder)
    return found


def test_each_topic_has_a_row_that_runs(printed: dict[str, str]) -> None:
    assert len(_rows()) == _TOPICS
    assert [shown for shown, out in printed.items() if not out.strip()] == []
