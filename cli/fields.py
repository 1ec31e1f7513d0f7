"""A request: a frozen dataclass whose fields are the flags of a command.

    @dataclass(frozen=True)
    class Request:
        batch_size: int = flag("Images a step.", 10, low=1)

A field's help, range and default are written once. `define` makes absl flags of the fields, and
`read` makes an instance of what was parsed; `parse` does both. Flags are checked when they are
parsed, before TensorFlow is imported.
"""

import dataclasses
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args

from absl import flags

COMMAS, REPEATED = "separated by commas", "repeated"  # How a flag takes many values.
_LARGEST_FLOAT32 = 3.4028234e38
_SMALLEST_FLOAT32 = 2.0**-126  # Of the normal ones: those below lose digits, or become 0.
_KEY = "flag"
_COMMAND = re.compile(r"^  (python (?:-m )?\S+).*(?<!\\)$", re.MULTILINE)
_Request = TypeVar("_Request")


class Check(NamedTuple):
    """What a flag's value must be; `help` is added to the flag's own.

    `accepts` may also raise a ValueError, whose message is then the one that is shown.
    """

    accepts: Callable[[Any], object]
    message: str = ""
    help: str = ""


class Together(NamedTuple):
    """What the values of several flags must be, in a request's `CHECKS`; `accepts` as of Check."""

    names: tuple[str, ...]
    accepts: Callable[..., object]
    message: str = ""


def needs(name: str, other: str) -> Together:
    """One flag is given only with another, without which it would change nothing."""
    return Together(
        (name, other), lambda one, two: not one or two is not None, f"--{name} needs --{other}"
    )


def is_normal_float32(value: float) -> bool:
    """Whether a float32 holds it with all its digits: not as infinity, nor as 0 or nearly so."""
    return _SMALLEST_FLOAT32 <= abs(value) <= _LARGEST_FLOAT32


POSITIVE = Check(
    lambda value: value > 0 and is_normal_float32(value),
    "must be a finite number above 0 that a float32 can hold, from 1.2e-38 to 3.4e38",
    " Above 0.",
)
FINITE = Check(
    lambda value: abs(value) <= _LARGEST_FLOAT32, "must be a finite number that a float32 can hold"
)
NAMES = Check(all, "must be tensor names, separated by commas")


def from_zero(below: float = math.inf) -> Check:
    """A number in [0, below); NaN and infinity are refused."""
    limit = "" if math.isinf(below) else f" and below {below:g}"
    return Check(lambda v: 0 <= v < below, f"must be a number from 0{limit}", f" From 0{limit}.")


def ends_in(*suffixes: str, message: str) -> Check:
    """A path with one of these suffixes, in capitals or not."""
    return Check(lambda path: os.path.splitext(path)[1].lower() in suffixes, message)


def each(parse: Callable[[str], object]) -> Check:
    """Each of a flag's texts is one that `parse` takes, which raises ValueError where it is not."""

    def accepts(texts: Sequence[str]) -> bool:
        for text in texts:
            try:
                parse(text)
            except ValueError as error:
                raise ValueError(f"{text!r}: {error}") from error
        return True

    return Check(accepts)


@dataclass(frozen=True)
class Flag:
    """The flag of a field.

    Attributes:
      name: where it is not the field's.
      low, high: of an integer.
      choices: the only values.
      many: `COMMAS` or `REPEATED`, for a tuple of texts.
      path: whether it is a path, or with `REPEATED` also name=path; `~` is expanded.
      check: further conditions; a value of None passes them.
      convert: makes the field's value of the flag's, where that is not None.
      positional: whether its value may stand without the flag's name.
      instead: a flag of which one or this has to be given.
      alias: another name for it.
      group: under which --help shows it; by default the `GROUP` of the field's class.
    """

    help: str
    name: str = ""
    low: int | None = None
    high: int | None = None
    choices: Sequence[str] = ()
    many: str = ""
    path: bool = False
    check: Check | None = None
    convert: Callable[[Any], Any] | None = None
    positional: bool = False
    instead: str = ""
    alias: str = ""
    group: str = ""


@dataclass(frozen=True)
class Nested:
    """The field is a dataclass whose fields are flags of their own; see `nested`."""

    kind: type
    without: tuple[str, ...]
    changes: Mapping[str, Any]


def flag(help_text: str, default: Any = MISSING, **options: Any) -> Any:
    """A field with a flag: one that must be given, where there is no default.

    Args:
      help_text: of the flag.
      default: of the flag; the field's is converted as the flag's value is.
      options: of a `Flag`.
    """
    spec = Flag(help_text, **options)
    metadata = {_KEY: spec, "default": default}
    if default is MISSING:
        return dataclasses.field(metadata=metadata)
    if default is None or spec.convert is None:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(default_factory=lambda: _converted(spec, default), metadata=metadata)


def nested(
    kind: type, *, optional: bool = False, without: Sequence[str] = (), **changes: Any
) -> Any:
    """A field that is a dataclass with flags.

    Args:
      kind: the dataclass.
      optional: whether the field is None where a flag of it that must be given is not.
      without: fields that have no flags here.
      changes: other defaults, or other `flag`s, by field.
    """
    metadata = {_KEY: Nested(kind, tuple(without), changes)}
    if optional:
        return dataclasses.field(default=None, metadata=metadata)
    return dataclasses.field(metadata=metadata)


class Entry(NamedTuple):
    """A flag of a request: its name, its type without None, what it is, and its default."""

    name: str
    kind: Any
    flag: Flag
    default: Any
    must_be_given: bool
    group: str


def entries(request: type) -> list[Entry]:
    """The flags of a request, in the order of its fields."""
    return [*_entries(request, Nested(request, (), {}), optional=False)]


def _entries(request: type, asked: Nested, *, optional: bool) -> Iterator[Entry]:
    for field in _fields(request, asked):
        spec = field.metadata[_KEY]
        if isinstance(spec, Nested):
            yield from _entries(spec.kind, spec, optional=field.default is None)
            continue
        default = field.metadata["default"]
        must_be_given = (default is MISSING or bool(spec.instead)) and not optional
        group = spec.group or _group(request, field.name)
        kind = _without_none(field.type)
        given = None if default is MISSING else default
        yield Entry(spec.name or field.name, kind, spec, given, must_be_given, group)


def _fields(request: Any, asked: Nested) -> Iterator[dataclasses.Field[Any]]:
    """The fields that have flags here, changed as is asked."""
    for field in dataclasses.fields(request):
        if _KEY not in field.metadata or field.name in asked.without:
            continue
        if field.name in asked.changes:
            change = asked.changes[field.name]
            if not isinstance(change, dataclasses.Field):
                change = dataclasses.field(metadata={**field.metadata, "default": change})
            change.name, change.type = field.name, field.type
            yield change
        else:
            yield field


def _group(request: type, name: str) -> str:
    """The group of the class that has the field."""
    owners = (kind for kind in request.__mro__ if name in inspect.get_annotations(kind))
    return str(getattr(next(owners), "GROUP", "flags"))


def _without_none(kind: Any) -> Any:
    if isinstance(kind, UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def define(request: type, values: flags.FlagValues) -> list[Entry]:
    """Defines the flags of a request, with their checks, and returns them."""
    found = entries(request)
    for entry in found:
        _define(entry, values)
        if entry.flag.path and not entry.flag.many:
            _check(entry.name, Check(bool, "must not be empty"), values)
        if entry.flag.check is not None:
            _check(entry.name, entry.flag.check, values)
        if entry.flag.alias:
            flags.DEFINE_alias(entry.flag.alias, entry.name, flag_values=values)
    for together in _checks(request):
        if all(name in values for name in together.names):
            _check_together(together, values)
    return found


def _define(entry: Entry, values: flags.FlagValues) -> None:
    name, kind, spec, default, *_ = entry
    text = spec.help + (spec.check.help if spec.check else "")
    options: dict[str, Any] = {"flag_values": values}
    if spec.path:
        parser = _NamedPathParser() if spec.many else _PathParser()
        if spec.many:
            serializer = flags.ArgumentSerializer[str]()
            flags.DEFINE_multi(parser, serializer, name, [*default], text, **options)
        else:
            flags.DEFINE(parser, name, default, text, **options)
    elif spec.many:
        listing = flags.DEFINE_multi_string if spec.many == REPEATED else flags.DEFINE_list
        listing(name, [*default], text, **options)
    elif spec.choices:
        flags.DEFINE_enum(name, default, [*spec.choices], text, **options)
    elif kind is int:
        flags.DEFINE_integer(name, default, text, spec.low, spec.high, **options)
    else:
        plain: dict[Any, Callable[..., object]] = {
            bool: flags.DEFINE_boolean,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }
        plain[kind](name, default, text, **options)


def _check(name: str, check: Check, values: flags.FlagValues) -> None:
    def accepts(value: Any) -> bool:
        return value is None or _accepted(check.accepts, value)

    flags.register_validator(name, accepts, check.message, values)


def _check_together(check: Together, values: flags.FlagValues) -> None:
    def accepts(given: Mapping[str, Any]) -> bool:
        return _accepted(check.accepts, *(given[name] for name in check.names))

    flags.register_multi_flags_validator(check.names, accepts, check.message, values)


def _accepted(accepts: Callable[..., object], *given: Any) -> bool:
    try:
        return bool(accepts(*given))
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error


def _checks(request: Any) -> Iterator[Together]:
    for kind in request.__mro__:
        yield from kind.__dict__.get("CHECKS", ())
    for field in dataclasses.fields(request):
        if isinstance(field.metadata.get(_KEY), Nested):
            yield from _checks(field.metadata[_KEY].kind)


class _PathParser(flags.ArgumentParser[str]):
    def parse(self, argument: str) -> str:
        """Expands `~` and `~user`, which a shell does not after `=`, and file:///path to /path."""
        is_url = argument.startswith("file:///")
        return os.path.expanduser(argument.removeprefix("file://") if is_url else argument)


class _NamedPathParser(_PathParser):
    def parse(self, argument: str) -> str:
        """Does so for a path, and for that of `name=path`."""
        name, equals, path = argument.partition("=")
        if name.startswith(("~", "file:///")):
            return super().parse(argument)
        return name + equals + super().parse(path)


def read(request: type[_Request], values: flags.FlagValues, **others: Any) -> _Request:
    """Makes a request of parsed flags; `others` are values of fields without a flag."""
    made: _Request = _read(request, Nested(request, (), {}), values, others, optional=False)
    return made


def _read(
    request: Any,
    asked: Nested,
    values: flags.FlagValues,
    others: Mapping[str, Any],
    *,
    optional: bool,
) -> Any:
    names = {field.name for field in dataclasses.fields(request)}
    given = {name: value for name, value in others.items() if name in names}
    for field in _fields(request, asked):
        spec = field.metadata[_KEY]
        if isinstance(spec, Nested):
            is_optional = field.default is None
            given[field.name] = _read(spec.kind, spec, values, others, optional=is_optional)
            continue
        value = values[spec.name or field.name].value
        if optional and value is None and field.metadata["default"] is MISSING:
            return None
        given[field.name] = _converted(spec, value)
    return request(**given)


def _converted(spec: Flag, value: Any) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    return value if spec.convert is None or value is None else spec.convert(value)


def parse(
    request: type[_Request], arguments: Sequence[str], description: str | None = None, **others: Any
) -> _Request:
    """Makes a request of a command line, the command's name first; `others` as of `read`.

    Raises:
      flags.Error: a flag is wrong, or missing, or there is an argument too many.
    """
    values = flags.FlagValues()
    found = define(request, values)
    take(values, arguments, found, description)
    return read(request, values, **others)


def take(
    values: flags.FlagValues,
    arguments: Sequence[str],
    found: Sequence[Entry],
    description: str | None,
) -> None:
    """Has the flags take a command line; errors as of `parse`."""
    stray = values(arguments)[1:]
    waiting = [x for x in found if x.flag.positional and values[x.name].value is None]
    if len(stray) > len(waiting):
        raise flags.Error(f"unexpected argument {stray[len(waiting)]!r}")
    for entry, value in zip(waiting, stray, strict=False):
        values[entry.name].parse(value)
    missing = [[x.name, *filter(None, [x.flag.instead])] for x in found if x.must_be_given]
    missing = [names for names in missing if all(values[name].value is None for name in names)]
    if missing:
        said = " and ".join(" or ".join(f"--{name}=..." for name in names) for names in missing)
        example = _COMMAND.search(description or "")
        such_as = f", such as {example[0].strip()}" if example else ""
        raise flags.Error(f"missing: {said}; usage: {usage(found, description)}{such_as}")
    values.validate_all_flags()


def usage(found: Sequence[Entry], description: str | None) -> str:
    """One line: the command, and what has to be given."""
    example = _COMMAND.search(description or "")
    stray = [entry.name.upper() for entry in found if entry.flag.positional]
    given = [entry for entry in found if entry.must_be_given and not entry.flag.positional]
    named = [f"--{entry.name}=..." for entry in given]
    command = example[1] if example else "python <script>"
    return " ".join([command, *stray, *named, "[flags]"])


# The groups of --help, those first that are asked for most. Others come after them.
_GROUPS = ("model", "data", "input", "training", "run", "checkpoints", "selection", "output")
_LAST = "limits"
_WIDTH = 88


def help_text(values: flags.FlagValues, found: Sequence[Entry], description: str | None) -> str:
    """What --help prints: the description, the usage, and the flags in groups.

    Args:
      values: all flags.
      found: those of a request, which have groups.
      description: the docstring; None under `python -OO`.
    """
    lines = [*(description or "").strip().splitlines(), ""]
    by_name = {entry.name: entry for entry in found}
    if found:
        lines += [f"usage: {usage(found, description)}", ""]
    grouped: dict[str, list[str]] = {group: [] for group in _GROUPS}
    for name in values:
        entry = by_name.get(name)
        if entry is not None or not found:  # Else it is another name of one.
            group = entry.group if entry else "flags"
            grouped.setdefault(group, []).extend(_flag_lines(values[name], entry))
    last = {_LAST: grouped.pop(_LAST, [])}
    for group, of_group in {**grouped, **last}.items():
        if of_group:
            lines += [f"{group}:", *of_group, ""]
    return "\n".join(lines).rstrip()


def _flag_lines(one: flags.Flag[Any], entry: Entry | None) -> list[str]:
    shown, text = f"--[no]{one.name}" if one.boolean else f"--{one.name}", str(one.help)
    notes = [] if entry is None else [*_notes(entry)]
    if entry is not None:  # Without what absl adds.
        text = entry.flag.help + (entry.flag.check.help if entry.flag.check else "")
    if not one.boolean and one.default not in (None, [], ""):
        notes.append(f"default: {one.default}")
    text = f"{shown}: {text}" + (f" ({'; '.join(notes)})" if notes else "")
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")


def _notes(entry: Entry) -> Iterator[str]:
    """What a flag's help does not say itself."""
    spec = entry.flag
    if entry.must_be_given and not spec.instead:
        yield "required, or the first argument" if spec.positional else "required"
    if spec.choices:
        yield f"one of {', '.join(spec.choices)}"
    if spec.low is not None and spec.high is not None:
        yield f"from {spec.low:,} to {spec.high:,}"
    elif spec.low:
        yield f"{spec.low} or more"
    if spec.many == REPEATED:
        yield "may be repeated"
    if spec.alias:
        yield f"also --{spec.alias}"
