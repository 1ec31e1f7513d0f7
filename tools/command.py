"""What all commands share: their start, their flags, their output on stdout.

A command runs in a process of its own, and ends with an exit code. It prints text for people, or
one JSON document for programs. Some flags have one name and one meaning in several commands.
"""

import importlib
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, NoReturn, TypeAlias

from cli.fields import Check, flag
from cli.run import Supervisor, run
from cli.terminal import STDERR, STDOUT, descriptors_into, printable
from errors import ToolError


def as_pattern(text: str) -> re.Pattern[str]:
    """Compiles it.

    Raises:
      ValueError: it is none of Python's, or more than its compiler takes.
    """
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


# What a command prints on stdout: text for people, one JSON document for programs.

Record: TypeAlias = Mapping[str, Any]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def show(record: Record, as_text: Callable[[Record], str], kind: str) -> None:
    """Prints what a command has found.

    Args:
      record: JSON values; NaN and infinities as `metagraph.casting.json_value` gives them.
      as_text: the same as lines for people.
      kind: `text` or `json`, as --format says.

    Raises:
      ValueError: the record holds a NaN, which is not JSON: a defect of the command.
    """
    if kind == "json":
        print(printable(json.dumps(record, ensure_ascii=False, allow_nan=False)))
    else:
        print(printable(as_text(record)))


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """Lines of columns, two spaces apart.

    Args:
      rows: the cells, each row as many.
      right: the columns whose cells stand at the right, as numbers do.
      indent: spaces before each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" " * indent + "  ".join(_cells(row, widths, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if index in right else cell.ljust(width)


def format_bytes(size: int) -> str:
    """A number of bytes for people: `1.4 MiB`, `512 B`."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


# Packages that only some commands need, and that need not be installed.


def check_installed(packages: Sequence[str], extra: str, what: str) -> None:
    """Sees that packages can be imported.

    Args:
      packages: their names, under which they are also installed.
      extra: of `pyproject.toml`, that names them.
      what: needs them, such as `an export to ONNX`.

    Raises:
      ToolError: one cannot; the message says how to install them.
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise ToolError(
            f"{what} needs the packages of the extra `{extra}`: pip install {' '.join(packages)} "
            f"({error})"
        ) from error


# The flags that several commands have, and their start.


@dataclass(frozen=True, kw_only=True)
class Printed:
    """How a command prints what it has found."""

    GROUP: ClassVar = "output"

    format: str = flag("Of what is printed.", "text", choices=("text", "json"))


def checkpoint(help_text: str, default: Any = MISSING, **options: Any) -> Any:
    """The field of a checkpoint, --ckpt or the first argument."""
    options = {"name": "ckpt", "path": True, "positional": True, "group": "model", **options}
    return flag(help_text, default, **options)


def overwrite(help_text: str = "Replace the file if there is one.") -> Any:
    """The field of what may be replaced."""
    return flag(help_text, False, group=Printed.GROUP)


def name_filter(help_text: str, default: str | None) -> Any:
    """The field of a regular expression that is looked for in names."""
    return flag(help_text, default, check=Check(_is_pattern), group="selection")


def _is_pattern(text: str) -> bool:
    try:
        as_pattern(text)
    except ValueError as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    return True


def run_command(
    main: Callable[[Any], int | None], request: type, description: str | None
) -> NoReturn:
    """Runs a command in a process of its own, as it reads what strangers made, and exits.

    Args:
      main: the work, from a request to an exit code, or None for 0.
      request: the dataclass of its flags.
      description: the command's docstring, shown by --help.
    """
    run(main, request, description, Supervisor("give it a smaller model"))


# Keeps a converter silent: what it says is for its makers; what it raises is for us to tell.


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what is written to stdout and stderr, by Python and beneath it, and all warnings.

    Warnings go too, as the packages warn of each other: none of them is about the user's model.
    """
    with (
        tempfile.TemporaryFile() as said,
        descriptors_into(said, [STDOUT, STDERR]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
