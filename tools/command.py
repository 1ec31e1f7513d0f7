"""What all commands share: their start, their flags, their output on stdout.

A command runs in a process of its own, and ends with an exit code. It prints text for people, or
one JSON document for programs. Some flags have one name and one meaning in several commands.
"""

import functools
import importlib
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NoReturn, Protocol, TypeAlias

from absl import flags

from cli import flag_types
from cli.flag_types import define_asset
from cli.run import Supervisor, run
from cli.terminal import STDERR, STDOUT, descriptors_into, printable
from errors import CheckpointError, DataError, PredictionError, ToolError


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


# Flags that several commands have, under one name and with one meaning.

META_HELP = (
    "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
    "newest checkpoint; a frozen graph (.pb), or the folder of a SavedModel."
)
CKPT_HELP = "A checkpoint: its prefix or any file of it, or a folder for its newest."
OTHER_CKPT_HELP = (
    "The checkpoint to take the variables from, where that is another than the graph's own; 'best' "
    "for the one with the best test accuracy."
)
OVERWRITE_HELP = "Replace the file if there is one."


def define_meta(values: flags.FlagValues) -> None:
    """Defines --meta, as predict.py has it; to be named in `positional` where it must be given."""
    flag_types.define_path("meta", None, META_HELP, values)


def define_ckpt(values: flags.FlagValues, help_text: str = CKPT_HELP) -> None:
    """Defines --ckpt; to be named in `positional` where it must be given."""
    flag_types.define_path("ckpt", None, help_text, values)


def define_format(values: flags.FlagValues) -> None:
    """Defines --format."""
    flags.DEFINE_enum("format", "text", ["text", "json"], "Of what is printed.", flag_values=values)


def define_overwrite(values: flags.FlagValues, help_text: str = OVERWRITE_HELP) -> None:
    """Defines --overwrite."""
    flags.DEFINE_boolean("overwrite", False, help_text, flag_values=values)


def define_part(values: flags.FlagValues) -> None:
    """Defines which part of a graph is kept: --outputs, --inputs, --signature and --asset."""
    flags.DEFINE_list(
        "outputs",
        [],
        "The tensors that the result is to compute, by name or key of the signature. By default "
        "the collection 'predict' and the signature's outputs.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "inputs",
        [],
        "Tensors at which the graph is cut, by name or key of the signature: they become "
        "placeholders. By default it has the signature's inputs, its own placeholders, and what "
        "comes out of queues and iterators.",
        flag_values=values,
    )
    for name in ("outputs", "inputs"):
        flags.register_validator(
            name,
            all,
            message="must be tensor names, separated by commas",
            flag_values=values,
        )
    define_signature(values)
    define_asset(
        values,
        "A file that a lookup table is filled from: name=path, as predict.py takes it. The result "
        "holds its content.",
    )


def define_signature(values: flags.FlagValues) -> None:
    """Defines --signature, as predict.py has it."""
    flags.DEFINE_string(
        "signature",
        None,
        "The signature whose inputs and outputs are meant; serving_default, or the only one, "
        "unless named here.",
        flag_values=values,
    )


def define_filter(values: flags.FlagValues, help_text: str) -> None:
    """Defines --filter, a regular expression that is looked for in names."""
    flags.DEFINE_string("filter", None, help_text, flag_values=values)
    flags.register_validator("filter", _is_pattern_or_none, flag_values=values)


def _is_pattern_or_none(text: str | None) -> bool:
    try:
        as_pattern(text or "")
    except ValueError as error:
        raise flags.ValidationError(f"must be a regular expression: {error}") from error
    return True


# The start of a command: its process, its errors, its exit code.

USER_ERRORS = (CheckpointError, DataError, PredictionError, ToolError)
EndAfter: TypeAlias = Callable[[float, str], None]


class Main(Protocol):
    """The work of a command: parsed flags to an exit code, or None for 0.

    `end_after` is that of a `TimeLimit`.
    """

    def __call__(  # noqa: D102 (told by the class)
        self, values: flags.FlagValues, end_after: EndAfter | None = None
    ) -> int | None: ...


def run_command(
    main: Main,
    define_flags: Callable[[flags.FlagValues], None],
    description: str | None,
    positional: Sequence[str] = (),
) -> NoReturn:
    """Runs a command in a process of its own, as it reads what strangers made, and exits.

    Args:
      main: the work.
      define_flags: defines its flags.
      description: the command's docstring, shown by --help.
      positional: flags whose values may stand without them, see `cli.run.run`.
    """
    supervisor = Supervisor("give it a smaller model")
    run(
        functools.partial(main, end_after=supervisor.end_after),
        define_flags,
        description,
        user_errors=USER_ERRORS,
        supervisor=supervisor,
        positional=positional,
    )


# What the flags need to know of an export; apart from what does it, which needs TensorFlow.

SAVED_MODEL, ONNX, TFLITE = "saved_model", "onnx", "tflite"
FORMATS = (SAVED_MODEL, ONNX, TFLITE)
SUFFIXES = {ONNX: ".onnx", TFLITE: ".tflite"}  # A SavedModel is a folder.
DEFAULT_TOLERANCE = 1e-5
# onnxruntime promises to run opsets from 7 on, and tf2onnx writes none above 18. Runtimes of 2022
# and later take 17.
FIRST_OPSET, DEFAULT_OPSET, LAST_OPSET = 7, 17, 18


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


# The names of the parts of a graph's file, for the flags: nothing else is imported.

PARTS = (
    "info",
    "graph",
    "saver",
    "collections",
    "signatures",
    "functions",
    "cost",
    "safety",
)
