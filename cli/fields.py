"""A request: a frozen dataclass whose fields are the flags of a command.

    @dataclass(frozen=True)
    class Request:
        batch_size: int = flag("Images a step.", 10, low=1)

A field's help, range and default are written once; `cli.command_line` makes flags of the fields,
and an instance of the dataclass of what is given.
"""

import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from types import UnionType
from typing import Any, NamedTuple, get_args

COMMAS, REPEATED = "separated by commas", "repeated"  # How a flag takes many values.
_LARGEST_FLOAT32 = 3.4028234e38
_SMALLEST_FLOAT32 = 2.0**-126  # Of the normal ones: those below lose digits, or become 0.
_KEY = "flag"


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
    for field, spec in specs_of(asked):
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


def specs_of(asked: Nested) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
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


def checks_of(request: Any) -> Iterator[Together]:
    """The checks of several flags together, of a request and of what is nested in it."""
    for kind in request.__mro__:
        yield from kind.__dict__.get("CHECKS", ())
    for _, spec in specs_of(Nested(request)):
        if isinstance(spec, Nested):
            yield from checks_of(spec.kind)
