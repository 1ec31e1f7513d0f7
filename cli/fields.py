"""A request: a frozen dataclass whose fields are the flags of a command.

    @dataclass(frozen=True)
    class Request:
        batch_size: int = flag("Images a step.", 10, low=1)

A field's help, range and default are written once: `parse` makes flags of the fields, and a
request of the flags that are given.
"""

import dataclasses
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args

from absl import flags

COMMAS, REPEATED = "separated by commas", "repeated"  # How a flag takes many values.
_LARGEST_FLOAT32 = 3.4028234e38
_SMALLEST_FLOAT32 = 2.0**-126  # Of the normal ones: those below lose digits, or become 0.
_KEY = "flag"


class Check(NamedTuple):
    """What a flag's value must be."""

    accepts: Callable[[Any], object]  # Or raises a ValueError, whose message is shown.
    message: str = ""
    help: str = ""  # Added to the flag's own.


class Together(NamedTuple):
    """What the values of several flags must be, in a request's `CHECKS`."""

    names: tuple[str, ...]
    accepts: Callable[..., object]
    message: str = ""


def needs(name: str, other: str) -> Together:
    """One flag is given only with another, without which it would change nothing."""
    return Together(
        (name, other),
        lambda one, two: not one or (two is not None and two is not False),
        f"--{name} needs --{other}",
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
    """The flag of a field; `_flags_of` fills in what the field itself says."""

    help: str
    default: Any = MISSING  # A flag without one must be given.
    name: str = ""  # By default the field's.
    low: int | None = None  # Of an integer.
    high: int | None = None
    choices: Sequence[str] = ()  # The only values.
    many: str = ""  # `COMMAS` or `REPEATED`, for a tuple of texts.
    path: bool = False  # Whether it is a path, or with `many` also name=path; `~` is expanded.
    check: Check = _ANYTHING  # A further condition; a value of None passes it.
    convert: Callable[[Any], Any] = lambda value: value  # From the flag's value to the field's.
    positional: bool = False  # Whether its value may stand without the flag's name.
    instead: str = ""  # A flag of which one or this has to be given.
    alias: str = ""  # Another name for it.
    group: str = ""  # Of --help; by default the `GROUP` of the field's class.
    once: bool = False  # Whether it is of this call alone, and not in `CommandLine.as_file`.
    kind: Any = None  # The field's type, without None.
    required: bool = False  # Whether it, or the flag `instead`, must be given.

    def value(self, parsed: Any) -> Any:
        """The field's value, of the flag's; None stays None."""
        if parsed is None:
            return None
        if self.many:
            return self.convert(tuple(map(_named_path, parsed) if self.path else parsed))
        return self.convert(_path(parsed) if self.path else parsed)


def _path(text: str) -> str:
    """Expands `~` and `~user`, which a shell does not after `=`, and file:///path to /path."""
    is_url = text.startswith("file:///")
    return os.path.expanduser(text.removeprefix("file://") if is_url else text)


def _named_path(text: str) -> str:
    """Does so for a path, and for that of `name=path`."""
    name, equals, path = text.partition("=")
    is_path = name.startswith(("~", "file:///"))
    return _path(text) if is_path else name + equals + _path(path)


@dataclass(frozen=True)
class Nested:
    """The field is a dataclass whose fields have flags of their own."""

    kind: Any  # The dataclass.
    optional: bool = False  # Whether the field is None where a flag that it needs is not given.
    without: Sequence[str] = ()  # Fields that have no flags here.
    # Other defaults, or `flag`s, by field.
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def flag(help_text: str, default: Any = MISSING, **options: Any) -> Any:
    """A field with a flag, by default one that must be given; its own default is converted."""
    spec = Flag(help_text, default, **options)
    if default is MISSING:
        return dataclasses.field(metadata={_KEY: spec})
    return dataclasses.field(default_factory=lambda: spec.value(default), metadata={_KEY: spec})


def nested(
    kind: type, *, optional: bool = False, without: Sequence[str] = (), **changes: Any
) -> Any:
    """A field that is a dataclass with flags; see `Nested`."""
    metadata = {_KEY: Nested(kind, optional, without, changes)}
    return dataclasses.field(default=None if optional else MISSING, metadata=metadata)


def _flags_of(asked: Nested) -> Iterator[Flag]:
    """The flags of a request, in the order of its fields."""
    for field, spec in _specs_of(asked):
        if isinstance(spec, Nested):
            yield from _flags_of(spec)
            continue
        owner = next(k for k in asked.kind.__mro__ if field.name in inspect.get_annotations(k))
        is_missing = spec.default is MISSING
        kinds = [kind for kind in get_args(field.type) if kind is not type(None)]
        yield dataclasses.replace(
            spec,
            name=spec.name or field.name,
            default=None if is_missing else spec.default,
            kind=kinds[0] if isinstance(field.type, UnionType) else field.type,
            required=(is_missing or bool(spec.instead)) and not asked.optional,
            group=spec.group or str(getattr(owner, "GROUP", "flags")),
        )


def _specs_of(asked: Nested) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
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


def _checks_of(asked: Nested) -> Iterator[Together]:
    """The checks of several flags together, of a request and of what is nested in it."""
    for kind in asked.kind.__mro__:
        yield from kind.__dict__.get("CHECKS", ())
    for _, spec in _specs_of(asked):
        if isinstance(spec, Nested):
            yield from _checks_of(spec)


# Flags of the fields, a request of the flags that are given, and the help.

_PROGRAM = "tf-graph-trainer"
_COMMAND = re.compile(rf"^  ((?:python(?: -m)?|{_PROGRAM}) \S+).*(?<!\\)$", re.MULTILINE)
_OF_CHECKOUT = re.compile(r"\bpython (?:-m tools\.(\w+)|(\w+)\.py)")
# As `pyproject.toml` has it installed, all of ours is in one package.
_IS_INSTALLED = Path(__file__).resolve().parent.parent.name == "tf_graph_trainer"
# The groups of --help, those first that are asked for most. Others come after them.
_GROUPS = (
    "model",
    "data",
    "input",
    "training",
    "run",
    "checkpoints",
    "workers",
    "selection",
    "output",
)
_LAST = "limits"
_WIDTH = 88
_Request = TypeVar("_Request")


def parse(
    request: type[_Request], arguments: Sequence[str], description: str | None = None, **others: Any
) -> _Request:
    """Makes a request of a command line and `others`, or raises flags.Error where it is wrong."""
    line = CommandLine(request, description)
    line.take(arguments)
    made: _Request = line.read(others)
    return made


class CommandLine:
    """The flags of a request: not absl's global ones, so that importing a script has no effect."""

    def __init__(self, request: type, description: str | None = None) -> None:
        """Defines the flags; `description` is the docstring, None under `python -OO`."""
        self.values = flags.FlagValues()
        self._request = Nested(request)
        self._flags = [*_flags_of(self._request)]
        self._description = (description or "").strip()
        if _IS_INSTALLED:
            self._description = _OF_CHECKOUT.sub(
                lambda found: f"{_PROGRAM} {found[1] or found[2]}", self._description
            )
        for one in self._flags:
            _define(one, self.values)
            if one.path and not one.many:
                _check([one.name], bool, "must not be empty", self.values)
            _check([one.name], one.check.accepts, one.check.message, self.values)
            if one.alias:
                flags.DEFINE_alias(one.alias, one.name, flag_values=self.values)
        for check in _checks_of(self._request):
            if all(name in self.values for name in check.names):
                _check(check.names, check.accepts, check.message, self.values)

    def take(self, arguments: Sequence[str]) -> None:
        """Has the flags take a command line; errors as of `parse`."""
        try:
            stray = self.values(arguments)[1:]
        except flags.UnrecognizedFlagError as error:
            name = error.flagname  # absl itself suggests those that begin alike.
            meant = [flag for flag in self.values if flag.endswith(f"_{name}")]
            if not meant:
                raise
            meant = sorted(meant, key=lambda flag: flag.count("_"))[:3]
            raise flags.UnrecognizedFlagError(name, error.flagvalue, meant) from error
        except UnicodeDecodeError as error:
            raise flags.Error(f"--flagfile names a file that is no text: {error}") from error
        waiting = [x for x in self._flags if x.positional and (x.many or self._is_missing(x.name))]
        if waiting and waiting[-1].many:  # It takes all that are left.
            waiting += [waiting[-1]] * (len(stray) - len(waiting))
        if len(stray) > len(waiting):
            raise flags.Error(f"unexpected argument {stray[len(waiting)]!r}")
        for one, value in zip(waiting, stray, strict=False):
            self.values[one.name].parse(value)
        needed = [[x.name, *filter(None, [x.instead])] for x in self._flags if x.required]
        if missing := [names for names in needed if all(map(self._is_missing, names))]:
            said = " and ".join(" or ".join(f"--{name}=..." for name in names) for names in missing)
            example = _COMMAND.search(self._description)
            such_as = f", such as {example[0].strip()}" if example else ""
            raise flags.Error(f"missing: {said}; {self.usage()}{such_as}")
        self.values.validate_all_flags()

    def _is_missing(self, name: str) -> bool:
        return self.values[name].value is None

    def read(self, others: Mapping[str, Any], asked: Nested | None = None) -> Any:
        """Makes a request of what was taken; `others` are values of fields without a flag."""
        if asked is None:
            asked, others = self._request, {"flags": self.as_file(), **others}
        names = {field.name for field in dataclasses.fields(asked.kind)}
        given = {name: value for name, value in others.items() if name in names}
        for field, spec in _specs_of(asked):
            if isinstance(spec, Nested):
                given[field.name] = self.read(others, spec)
                continue
            value = spec.value(self.values[spec.name or field.name].value)
            if asked.optional and value is None and spec.default is MISSING:
                return None
            given[field.name] = value
        return asked.kind(**given)

    def as_file(self) -> str:
        """The flags that make the same request again, a line each, for absl's --flagfile.

        It is empty where a value has a line end or a space at its end, which such a file loses.
        """
        kept = [self.values[one.name] for one in self._flags if not one.once]
        given = [(flag, flag.value) for flag in kept if flag.value not in (None, [])]
        for _, value in given:
            texts = value if isinstance(value, list) else [value]
            if any(re.search(r"[\r\n]|\s\Z", str(text)) for text in texts):
                return ""
        return "".join(f"{flag.serialize()}\n" for flag, _ in given)

    def usage(self) -> str:
        """One line: the command, and what has to be given."""
        example = _COMMAND.search(self._description)
        stray = [one.name.upper() for one in self._flags if one.positional]
        named = [f"--{x.name}=..." for x in self._flags if x.required and not x.positional]
        command = example[1] if example else "python <script>"
        return " ".join(["usage:", command, *stray, *named, "[flags]"])

    def help(self) -> str:
        """What --help prints: the description, the usage, and the flags in groups."""
        lines = [self._description, "", self.usage(), ""]
        others = [one.group for one in self._flags if one.group != _LAST]
        for group in dict.fromkeys([*_GROUPS, *others, _LAST]):
            members = [one for one in self._flags if one.group == group]
            members.sort(key=lambda one: (not one.positional, not one.required))
            if members:
                lines += [f"{group}:", *map(self._flag_help, members), ""]
        return "\n".join(lines).strip()

    def _flag_help(self, one: Flag) -> str:
        defined, notes = self.values[one.name], [*_notes(one)]
        if not defined.boolean and defined.default not in (None, [], ""):
            notes.append(f"default: {defined.default}")
        text = f"{one.help}{one.check.help}" + (f" ({'; '.join(notes)})" if notes else "")
        name = f"  --[no]{one.name}: " if defined.boolean else f"  --{one.name}: "
        return textwrap.fill(text, _WIDTH, initial_indent=name, subsequent_indent=" " * 6)


def _notes(one: Flag) -> Iterator[str]:
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


def _define(one: Flag, values: flags.FlagValues) -> None:
    name, default, text = one.name, one.default, one.help
    options: dict[str, Any] = {"flag_values": values}
    if one.many:
        listing = flags.DEFINE_multi_string if one.many == REPEATED else flags.DEFINE_list
        listing(name, None if default is None else [*default], text, **options)
    elif one.choices:
        flags.DEFINE_enum(name, default, [*one.choices], text, **options)
    elif one.kind is int:
        flags.DEFINE_integer(name, default, text, one.low, one.high, **options)
    elif one.kind is bool:
        flags.DEFINE_boolean(name, default, text, **options)
    elif one.kind is float:
        flags.DEFINE_float(name, default, text, **options)
    else:
        flags.DEFINE_string(name, default, text, **options)


def _check(
    names: Sequence[str], accepts: Callable[..., object], message: str, values: flags.FlagValues
) -> None:

    def is_accepted(*given: Any) -> bool:
        try:
            return given == (None,) or bool(accepts(*given))
        except ValueError as error:
            raise flags.ValidationError(str(error)) from error

    if len(names) == 1:
        flags.register_validator(names[0], is_accepted, message, values)
    else:
        flags.register_multi_flags_validator(
            names, lambda given: is_accepted(*(given[name] for name in names)), message, values
        )
