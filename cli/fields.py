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
_ANYTHING = Check(lambda _: True)
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
    """The flag of a field; what the field itself says is filled in by `flags_of`.

    Attributes:
      default: of the flag; MISSING for one that must be given.
      name: by default the field's.
      low, high: of an integer.
      choices: the only values.
      many: `COMMAS` or `REPEATED`, for a tuple of texts.
      path: whether it is a path, or with `REPEATED` also name=path; `~` is expanded.
      check: a further condition; a value of None passes it.
      convert: makes the field's value of the flag's, where that is not None.
      positional: whether its value may stand without the flag's name.
      instead: a flag of which one or this has to be given.
      alias: another name for it.
      group: under which --help shows it; by default the `GROUP` of the field's class.
      kind: the field's type, without None.
      required: whether it, or the flag `instead`, must be given.
    """

    help: str
    default: Any = MISSING
    name: str = ""
    low: int | None = None
    high: int | None = None
    choices: Sequence[str] = ()
    many: str = ""
    path: bool = False
    check: Check = _ANYTHING
    convert: Callable[[Any], Any] = lambda value: value
    positional: bool = False
    instead: str = ""
    alias: str = ""
    group: str = ""
    kind: Any = None
    required: bool = False

    def value(self, parsed: Any) -> Any:
        """The field's value, of the flag's."""
        value = tuple(parsed) if isinstance(parsed, list) else parsed
        return None if value is None else self.convert(value)


@dataclass(frozen=True)
class Nested:
    """The field is a dataclass whose fields are flags of their own; see `nested`."""

    kind: Any
    optional: bool = False
    without: Sequence[str] = ()
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def flag(help_text: str, default: Any = MISSING, **options: Any) -> Any:
    """A field with a flag: one that must be given, where there is no default.

    Args:
      help_text: of the flag.
      default: of the flag; the field's is what the flag's is converted to.
      options: of a `Flag`.
    """
    spec = Flag(help_text, default, **options)
    if default is MISSING:
        return dataclasses.field(metadata={_KEY: spec})
    return dataclasses.field(default_factory=lambda: spec.value(default), metadata={_KEY: spec})


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
    metadata = {_KEY: Nested(kind, optional, without, changes)}
    return dataclasses.field(default=None if optional else MISSING, metadata=metadata)


def flags_of(request: type, asked: Nested | None = None) -> Iterator[Flag]:
    """The flags of a request, in the order of its fields; `asked` where it is nested."""
    asked = asked or Nested(request)
    for field, spec in _specs(asked):
        if isinstance(spec, Nested):
            yield from flags_of(spec.kind, spec)
            continue
        is_missing = spec.default is MISSING
        kinds = [kind for kind in get_args(field.type) if kind is not type(None)]
        yield dataclasses.replace(
            spec,
            name=spec.name or field.name,
            default=None if is_missing else spec.default,
            kind=kinds[0] if isinstance(field.type, UnionType) else field.type,
            required=(is_missing or bool(spec.instead)) and not asked.optional,
            group=spec.group or _group(request, field.name),
        )


def _specs(asked: Nested) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The fields that have flags here, and these, changed as is asked."""
    for field in dataclasses.fields(asked.kind):
        spec = field.metadata.get(_KEY)
        if spec is None or field.name in asked.without:
            continue
        if field.name in asked.changes:
            change = asked.changes[field.name]
            is_flag = isinstance(change, dataclasses.Field)
            spec = change.metadata[_KEY] if is_flag else dataclasses.replace(spec, default=change)
        yield field, spec


def _group(request: type, name: str) -> str:
    """The group of the class that has the field."""
    owners = (kind for kind in request.__mro__ if name in inspect.get_annotations(kind))
    return str(getattr(next(owners), "GROUP", "flags"))


def define(request: type, values: flags.FlagValues) -> list[Flag]:
    """Defines the flags of a request, with their checks, and returns them."""
    found = [*flags_of(request)]
    for one in found:
        _define(one, values)
        if one.path and not one.many:
            _check([one.name], bool, "must not be empty", values)
        _check([one.name], one.check.accepts, one.check.message, values)
        if one.alias:
            flags.DEFINE_alias(one.alias, one.name, flag_values=values)
    for together in _checks(request):
        if all(name in values for name in together.names):
            _check(together.names, together.accepts, together.message, values)
    return found


def _define(one: Flag, values: flags.FlagValues) -> None:
    name, default, text = one.name, one.default, one.help + one.check.help
    options: dict[str, Any] = {"flag_values": values}
    if one.path and one.many:
        serializer = flags.ArgumentSerializer[str]()
        flags.DEFINE_multi(_NamedPathParser(), serializer, name, [*default], text, **options)
    elif one.path:
        flags.DEFINE(_PathParser(), name, default, text, **options)
    elif one.many:
        listing = flags.DEFINE_multi_string if one.many == REPEATED else flags.DEFINE_list
        listing(name, [*default], text, **options)
    elif one.choices:
        flags.DEFINE_enum(name, default, [*one.choices], text, **options)
    elif one.kind is int:
        flags.DEFINE_integer(name, default, text, one.low, one.high, **options)
    else:
        plain: dict[Any, Callable[..., object]] = {
            bool: flags.DEFINE_boolean,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }
        plain[one.kind](name, default, text, **options)


def _check(
    names: Sequence[str], accepts: Callable[..., object], message: str, values: flags.FlagValues
) -> None:
    """Has one flag checked where it is given, or several together."""

    def accepts_all(given: Mapping[str, Any]) -> bool:
        try:
            return bool(accepts(*(given[name] for name in names)))
        except ValueError as error:
            raise flags.ValidationError(str(error)) from error

    def accepts_one(value: Any) -> bool:
        return value is None or accepts_all({names[0]: value})

    if len(names) == 1:
        flags.register_validator(names[0], accepts_one, message, values)
    else:
        flags.register_multi_flags_validator(names, accepts_all, message, values)


def _checks(request: Any) -> Iterator[Together]:
    for kind in request.__mro__:
        yield from kind.__dict__.get("CHECKS", ())
    for _, spec in _specs(Nested(request)):
        if isinstance(spec, Nested):
            yield from _checks(spec.kind)


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
    made: _Request = _read(Nested(request), values, others)
    return made


def _read(asked: Nested, values: flags.FlagValues, others: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(asked.kind)}
    given = {name: value for name, value in others.items() if name in names}
    for field, spec in _specs(asked):
        if isinstance(spec, Nested):
            given[field.name] = _read(spec, values, others)
            continue
        value = spec.value(values[spec.name or field.name].value)
        if asked.optional and value is None and spec.default is MISSING:
            return None
        given[field.name] = value
    return asked.kind(**given)


def parse(
    request: type[_Request], arguments: Sequence[str], description: str | None = None, **others: Any
) -> _Request:
    """Makes a request of a command line, the command's name first; `others` as of `read`.

    Raises:
      flags.Error: a flag is wrong, or missing, or there is an argument too many.
    """
    values = flags.FlagValues()
    take(values, arguments, define(request, values), description)
    return read(request, values, **others)


def take(
    values: flags.FlagValues,
    arguments: Sequence[str],
    found: Sequence[Flag],
    description: str | None,
) -> None:
    """Has the flags take a command line; errors as of `parse`."""
    stray = values(arguments)[1:]
    waiting = [one for one in found if one.positional and values[one.name].value is None]
    if len(stray) > len(waiting):
        raise flags.Error(f"unexpected argument {stray[len(waiting)]!r}")
    for one, value in zip(waiting, stray, strict=False):
        values[one.name].parse(value)
    needed = [[one.name, *filter(None, [one.instead])] for one in found if one.required]
    missing = [names for names in needed if all(values[name].value is None for name in names)]
    if missing:
        said = " and ".join(" or ".join(f"--{name}=..." for name in names) for names in missing)
        example = _COMMAND.search(description or "")
        such_as = f", such as {example[0].strip()}" if example else ""
        raise flags.Error(f"missing: {said}; usage: {usage(found, description)}{such_as}")
    values.validate_all_flags()


def usage(found: Sequence[Flag], description: str | None) -> str:
    """One line: the command, and what has to be given."""
    example = _COMMAND.search(description or "")
    stray = [one.name.upper() for one in found if one.positional]
    named = [f"--{one.name}=..." for one in found if one.required and not one.positional]
    command = example[1] if example else "python <script>"
    return " ".join([command, *stray, *named, "[flags]"])


# The groups of --help, those first that are asked for most. Others come after them.
_GROUPS = ("model", "data", "input", "training", "run", "checkpoints", "selection", "output")
_LAST = "limits"
_WIDTH = 88


def help_text(values: flags.FlagValues, found: Sequence[Flag], description: str | None) -> str:
    """What --help prints: the description, the usage, and the flags in groups.

    Args:
      values: all flags.
      found: those of a request, which have groups; none where there is no request.
      description: the docstring; None under `python -OO`.
    """
    shown = found or [Flag(str(values[name].help), name=name, group="flags") for name in values]
    lines = [*(description or "").strip().splitlines(), ""]
    lines += [f"usage: {usage(shown, description)}", ""] if found else []
    groups = [
        *dict.fromkeys([*_GROUPS, *(one.group for one in shown if one.group != _LAST), _LAST])
    ]
    for group in groups:
        members = [one for one in found if one.group == group]
        if members:
            members.sort(key=lambda one: (not one.positional, not one.required))
            lines += [f"{group}:", *(x for one in members for x in _lines(one, values)), ""]
    return "\n".join(lines).rstrip()


def _lines(one: Flag, values: flags.FlagValues) -> list[str]:
    defined = values[one.name]
    shown = f"--[no]{one.name}" if defined.boolean else f"--{one.name}"
    notes = [*_notes(one)]
    if not defined.boolean and defined.default not in (None, [], ""):
        notes.append(f"default: {defined.default}")
    text = f"{shown}: {one.help}{one.check.help}" + (f" ({'; '.join(notes)})" if notes else "")
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")


def _notes(one: Flag) -> Iterator[str]:
    """What a flag's help does not say itself."""
    if one.required and not one.instead:
        yield "required, or the first argument" if one.positional else "required"
    if one.choices:
        yield f"one of {', '.join(one.choices)}"
    if one.low is not None and one.high is not None:
        yield f"from {one.low:,} to {one.high:,}"
    elif one.low:
        yield f"{one.low} or more"
    if one.many == REPEATED:
        yield "may be repeated"
    if one.alias:
        yield f"also --{one.alias}"
