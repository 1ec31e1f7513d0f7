"""The flags of a request, see `cli.fields`, as a command line gives them; and the help on them.

They are checked when they are parsed: before TensorFlow is imported.
"""

import dataclasses
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, Generic, TypeVar

from absl import flags

from cli.fields import REPEATED, Flag, Nested, checks_of, flags_of, specs_of

_COMMAND = re.compile(r"^  (python (?:-m )?\S+).*(?<!\\)$", re.MULTILINE)
# The groups of --help, those first that are asked for most. Others come after them.
_GROUPS = ("model", "data", "input", "training", "run", "checkpoints", "selection", "output")
_LAST = "limits"
_WIDTH = 88
_Request = TypeVar("_Request")


def parse(
    request: type[_Request], arguments: Sequence[str], description: str | None = None, **others: Any
) -> _Request:
    """Makes a request of a command line, the command's name first; `others` as of `read`.

    Raises:
      flags.Error: a flag is wrong, or missing, or there is an argument too many.
    """
    line = CommandLine(request, description)
    line.take(arguments)
    return line.read(**others)


class CommandLine(Generic[_Request]):
    """The flags of a request: the command's own, not absl's global ones.

    So importing a script has no effect.
    """

    def __init__(self, request: type[_Request], description: str | None = None) -> None:
        """Defines the flags; `description` is the docstring, None under `python -OO`."""
        self.values = flags.FlagValues()
        self._request = request
        self._flags = [*flags_of(request)]
        self._description = (description or "").strip()
        for one in self._flags:
            _define(one, self.values)
            if one.path and not one.many:
                _check([one.name], bool, "must not be empty", self.values)
            _check([one.name], one.check.accepts, one.check.message, self.values)
            if one.alias:
                flags.DEFINE_alias(one.alias, one.name, flag_values=self.values)
        for check in checks_of(request):
            if all(name in self.values for name in check.names):
                _check(check.names, check.accepts, check.message, self.values)

    def take(self, arguments: Sequence[str]) -> None:
        """Has the flags take a command line; errors as of `parse`."""
        stray = self.values(arguments)[1:]
        waiting = [x for x in self._flags if x.positional and self._is_missing(x.name)]
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

    def read(self, **others: Any) -> _Request:
        """Makes a request of what was taken; `others` are values of fields without a flag."""
        made: _Request = self._read(Nested(self._request), others)
        return made

    def _read(self, asked: Nested, others: Mapping[str, Any]) -> Any:
        names = {field.name for field in dataclasses.fields(asked.kind)}
        given = {name: value for name, value in others.items() if name in names}
        for field, spec in specs_of(asked):
            if isinstance(spec, Nested):
                given[field.name] = self._read(spec, others)
                continue
            value = spec.value(self.values[spec.name or field.name].value)
            if asked.optional and value is None and spec.default is MISSING:
                return None
            given[field.name] = value
        return asked.kind(**given)

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
