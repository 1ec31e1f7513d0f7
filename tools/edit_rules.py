"""Which names are kept, and what they are called: rules over texts, without a model."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from errors import ToolError
from tools.command import as_pattern

_SCOPE = "/"


class Rename(NamedTuple):
    """One rule for new names.

    Attributes:
      flag: as the user wrote it, for an error line.
      pattern: found anywhere in a name, it is replaced wherever it is.
      replacement: a text that may take groups of the pattern, as `re.sub` has it.
      name: the one name that a plain rule is for; None where it is for others too.
    """

    flag: str
    pattern: re.Pattern[str]
    replacement: str
    name: str | None = None


def plain_rename(text: str) -> Rename:
    """A rule `old=new`: for one name or, where both end in `/`, for all in a scope.

    `new` may be empty for a scope that is taken away.

    Raises:
      ValueError: it is no such rule.
    """
    old, equals, new = text.partition("=")
    is_scope = old.endswith(_SCOPE)
    if not equals or not old.strip(_SCOPE):
        raise ValueError("expected old=new")
    if is_scope and new and not new.endswith(_SCOPE):
        raise ValueError(f"makes no scope of a scope: {new}/ is one")
    if not is_scope and (not new or new.endswith(_SCOPE)):
        raise ValueError(f"gives a name no name: a scope is {old}/")
    pattern = re.escape(old) + ("" if is_scope else r"\Z")
    return Rename(
        f"--rename={text}",
        re.compile(rf"\A{pattern}"),
        new.replace("\\", r"\\"),
        None if is_scope else old,
    )


def regex_rename(text: str) -> Rename:
    r"""A rule `pattern=replacement`, such as `^conv(\d)/=layer\1/`; the last `=` divides it.

    Raises:
      ValueError: it is no such rule.
    """
    old, equals, new = text.rpartition("=")
    if not equals or not old:
        raise ValueError("expected pattern=replacement")
    pattern = as_pattern(old)
    try:
        pattern.sub(new, "")  # What the replacement takes has to be there.
    except (re.error, IndexError) as error:
        raise ValueError(str(error)) from error
    return Rename(f"--rename_regex={text}", pattern, new)


def select(
    keys: Sequence[str], only: Sequence[str], drop: Sequence[str], slots: Collection[str]
) -> list[str]:
    """The keys that are kept, in their order.

    Args:
      keys: of a checkpoint.
      only: patterns, one of which is found in each key that is kept; none for all keys.
      drop: patterns of which none is.
      slots: keys that are not kept either.

    Raises:
      ToolError: a pattern is found in no key, or nothing is left.
    """
    for flag, patterns in (("--only", only), ("--drop", drop)):
        for pattern in patterns:
            if not any(re.search(pattern, key) for key in keys):
                raise ToolError(
                    f"{flag}={pattern} is found in no name of the {len(keys)} in the checkpoint, "
                    "which python -m tools.inspect_checkpoint lists"
                )
    kept = [
        key
        for key in keys
        if (not only or _found(only, key)) and not _found(drop, key) and key not in slots
    ]
    if not kept:
        raise ToolError(f"nothing is left of the {len(keys)} variables in the checkpoint")
    return kept


def _found(patterns: Sequence[str], text: str) -> bool:
    return any(re.search(pattern, text) for pattern in patterns)


class NewNames:
    """The names that rules give, and which of the rules were of use."""

    def __init__(self, renames: Sequence[Rename]) -> None:
        self._renames = renames
        self._used: set[str] = set()

    def of(self, names: Iterable[str], variables: Collection[str] = ()) -> dict[str, str]:
        """Old name -> new name, by all rules one after the other.

        Args:
          names: the old ones.
          variables: those of `names` that are variables of a graph. The operations of a variable,
            such as `w/read`, go with it where a rule is for its one name; other variables below
            it, such as `w/Adam`, do not.

        Raises:
          ToolError: two would be called the same, or one is given no name.
        """
        new = {name: name for name in names}
        owned = set(variables)
        for rename in self._renames:
            moved = _moves(rename, new.values(), owned)
            if moved:
                self._used.add(rename.flag)
                new = {old: moved.get(name, name) for old, name in new.items()}
                owned = {moved.get(name, name) for name in owned}
        _check_distinct(new)
        return new

    def check_used(self) -> None:
        """Raises ToolError where a rule was for none of all names that `of` was given."""
        for rename in self._renames:
            if rename.flag not in self._used:
                raise ToolError(f"{rename.flag} is for no name that is kept")


def _moves(rename: Rename, names: Collection[str], variables: Collection[str]) -> dict[str, str]:
    """What one rule makes of those of `names` that it is for."""
    if rename.name is not None and rename.name in variables:
        return _with_operations(
            rename.name, rename.pattern.sub(rename.replacement, rename.name), names, variables
        )
    return {
        name: rename.pattern.sub(rename.replacement, name)
        for name in names
        if rename.pattern.search(name)
    }


def _with_operations(
    old: str, new: str, names: Collection[str], variables: Collection[str]
) -> dict[str, str]:
    """A variable and the names below it, but for those of other variables below it."""
    others = {name for name in variables if name.startswith(f"{old}/")}
    moves = {old: new}
    for name in names:
        if name.startswith(f"{old}/") and others.isdisjoint(_scopes(name)):
            moves[name] = new + name.removeprefix(old)
    return moves


def _scopes(name: str) -> list[str]:
    """A name and each scope that it is in: `a/b`, `a`."""
    parts = name.split(_SCOPE)
    return [_SCOPE.join(parts[:count]) for count in range(len(parts), 0, -1)]


def _check_distinct(new: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for old, name in new.items():
        if not name or name.startswith(_SCOPE) or name.endswith(_SCOPE):
            raise ToolError(f"{old} would be called {name!r}, which is no name")
        if name in taken:
            raise ToolError(f"{taken[name]} and {old} would both be called {name}")
        taken[name] = old
