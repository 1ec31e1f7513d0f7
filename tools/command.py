"""What commands share: their start, their flags, their output, which variables they keep."""

import importlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeAlias

from cli.fields import REPEATED, Check, each, flag
from cli.run import Supervisor, run
from cli.terminal import flush_streams, printable
from errors import ToolError

Record: TypeAlias = Mapping[str, Any]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LINE_END = re.compile(r"[\t\n]")


def show(record: Record, as_text: Callable[[Record], str], kind: str) -> None:
    """Prints JSON values, or the same as lines for people, as --format says (`kind`).

    NaN and infinities are as `metagraph.description.json_value` gives them; else a ValueError.
    """
    is_json = kind == "json"
    text = json.dumps(record, ensure_ascii=False, allow_nan=False) if is_json else as_text(record)
    print(printable(text))


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """Lines of columns, two spaces apart, of rows of as many cells each.

    The cells of the columns `right` stand at the right, as numbers do.
    """
    columns = []
    for index, column in enumerate(zip(*rows, strict=True)):
        # A line end in a name from a file would begin a line of its own. What else a terminal
        # obeys, `printable` escapes.
        cells = [_LINE_END.sub(lambda end: f"\\u{ord(end[0]):04x}", cell) for cell in column]
        width = max(map(len, cells))
        columns.append([c.rjust(width) if index in right else c.ljust(width) for c in cells])
    return [" " * indent + "  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def format_bytes(size: int) -> str:
    """A number of bytes for people: `1.4 MiB`, `512 B`."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS) - 1)  # Of 1024.
    return f"{size / 1024**power:.1f} {_UNITS[power]}" if power > 0 else f"{size} B"


def check_installed(packages: Sequence[str], extra: str, what: str) -> None:
    """ToolError, with the command that mends it, unless the packages of an extra can be imported.

    `extra` names them in `pyproject.toml`; `what` needs them, such as `an export to ONNX`.
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ValueError as error:  # Of matplotlib on MPLBACKEND, which is of no use here.
        raise ToolError(f"{package} cannot be imported: {error}") from error
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
    return flag(help_text, default, check=Check(as_pattern), group="selection")


def as_pattern(text: str) -> re.Pattern[str]:
    """The regular expression; ValueError where it is none, or more than the compiler takes."""
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"must be a regular expression: {error}") from error


def run_command(
    main: Callable[[Any], int | None], request: type, description: str | None
) -> NoReturn:
    """Runs a command in a process of its own, as it reads what strangers made, and exits.

    `main` makes an exit code of the `request`; None is 0. --help shows the description.
    """
    run(main, request, description, Supervisor("give it a smaller model"))


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what a converter writes to stdout and stderr, also beneath Python, and its warnings."""
    flush_streams()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with open(os.devnull, "w", errors="backslashreplace") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for descriptor in kept:  # So that C++ code writes there, too.
            os.dup2(nowhere.fileno(), descriptor)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            flush_streams()
            for descriptor, original in kept.items():
                os.dup2(original, descriptor)
                os.close(original)


# Which variables of a checkpoint a command keeps, and what it calls them.


class Rename(NamedTuple):
    """A pattern that is replaced wherever it is found in a name, as `re.sub` does it."""

    flag: str  # The rule as the user wrote it, for an error line.
    pattern: re.Pattern[str]
    replacement: str


def plain_rename(text: str) -> Rename:
    """A rule `old=new`: for one name or, where both end in `/`, for all in a scope.

    Either may be empty, for a scope that is put before all names or taken away; ValueError where it
    is no such rule.
    """
    old, equals, new = text.partition("=")
    is_scope, is_new_scope = (not side or side.endswith("/") for side in (old, new))
    if not equals or not (old or new) or "/" in (old, new) or is_scope != is_new_scope:
        raise ValueError("expected old=new for a name, old/=new/, old/= or =new/ for a scope")
    pattern = re.compile(rf"\A{re.escape(old)}" + ("" if is_scope else r"\Z"))
    return Rename(f"--rename={text}", pattern, new.replace("\\", r"\\"))


def renames(help_text: str) -> Any:
    """The field of rules, which are applied in their order."""
    return flag(
        help_text,
        (),
        many=REPEATED,
        group="selection",
        check=each(plain_rename),
        convert=lambda texts: tuple(map(plain_rename, texts)),
    )


def patterns(help_text: str) -> Any:
    """The field of regular expressions that are looked for in names."""
    return flag(help_text, (), many=REPEATED, group="selection", check=each(as_pattern))


def select(
    keys: Sequence[str], slots: Collection[str], only: Sequence[str] = (), drop: Sequence[str] = ()
) -> list[str]:
    """The keys of a checkpoint that are kept, in their order: none of the slots.

    Raises ToolError where a pattern is found in no key, or nothing is left.
    """
    left = set() if only else {*keys}
    for flag_name, patterns in (("only", only), ("drop", drop)):
        for pattern in patterns:
            found = {key for key in keys if re.search(pattern, key)}
            if not found:
                raise ToolError(
                    f"--{flag_name}={pattern} is found in no name of the {len(keys)} in the "
                    "checkpoint, which python -m tools.inspect_checkpoint lists"
                )
            left = left | found if flag_name == "only" else left - found
    kept = [key for key in keys if key in left and key not in slots]
    if not kept:
        raise ToolError(f"nothing is left of the {len(keys)} variables in the checkpoint")
    return kept


def new_names(names: Sequence[str], rules: Sequence[Rename]) -> dict[str, str]:
    """Old name -> new name, by all rules one after the other.

    Raises ToolError where a rule is for none of them, two would be called the same, or one nothing.
    """
    new = {name: name for name in names}
    for rule in rules:
        if not any(rule.pattern.search(name) for name in new.values()):
            raise ToolError(f"{rule.flag} is for no name that is kept")
        new = {old: rule.pattern.sub(rule.replacement, name) for old, name in new.items()}
    taken: dict[str, str] = {}
    for old, name in new.items():
        if not name.strip("/") or name != name.strip("/"):
            raise ToolError(f"{old} would be called {name!r}, which is no name")
        if name in taken:
            raise ToolError(f"{taken[name]} and {old} would both be called {name}")
        taken[name] = old
    return new
