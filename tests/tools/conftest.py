"""What the tests of the commands share: a command as a user calls it, and models to call it on."""

import importlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest
from absl import flags

from cli.run import parse
from cli.terminal import EXIT_FAILED, EXIT_USAGE
from tools.command import USER_ERRORS


class Ended(NamedTuple):
    """How a command ended: its exit code, its stdout, and its stderr (of an error, the line)."""

    code: int
    out: str
    err: str


Tool: TypeAlias = Callable[..., Ended]


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Calls `python -m tools.<name> <arguments>` in this process, as `cli.run` does."""

    def call(name: str, *arguments: object) -> Ended:
        module = importlib.import_module(f"tools.{name}")
        values = flags.FlagValues()
        module.define_flags(values)
        capsys.readouterr()
        try:
            parse(values, [f"{name}.py", *map(str, arguments)], module.POSITIONAL)
        except flags.Error as error:
            return Ended(EXIT_USAGE, "", str(error))
        try:
            code = module.main(values) or 0
        except (*USER_ERRORS, OSError) as error:
            return Ended(EXIT_FAILED, capsys.readouterr().out, str(error))
        return Ended(code, *capsys.readouterr())

    return call
