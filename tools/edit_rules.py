"""Which names are kept, and what they are called: rules over texts, without a model."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from errors import ToolError
from tools.command import as_pattern


class Rename(NamedTuple):
    """A pattern that is replaced wherever it is found in a name, as `re.sub` does it.

    `flag` is the rule as the user wrote it, for an error line.
    """

    flag: str
    pattern: re.Pattern[str]
    replacement: str


def plain_rename(text: str) -> Rename:
    """A rule `old=new`: for one name or, where both end in `/`, for all in a scope.

    `new` may be empty for a scope that is taken away.

    Raises:
      ValueError: it is no such rule.
    """
    old, equals, new = text.partition("=")
    is_scope = old.endswith("/")
    if not equals or not old.strip("/"):
        raise ValueError("expected old=new")
    if is_scope and new and not new.endswith("/"):
        raise ValueError(f"makes no scope of a scope: {new}/ is one")
    if not is_scope and (not new or new.endswith("/")):
        raise ValueError(f"gives a name no name: a scope is {old}/")
    pattern = re.compile(rf"\A{re.escape(old)}" + ("" if is_scope else r"\Z"))
    return Rename(f"--rename={text}", pattern, new.replace("\\", r"\\"))


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

    def is_in(patterns: Sequence[str], key: str) -> bool:
        return any(re.search(pattern, key) for pattern in patterns)

    kept = [k for k in keys if (not only or is_in(only, k)) and not is_in(drop, k)]
    kept = [key for key in kept if key not in slots]
    if not kept:
        raise ToolError(f"nothing is left of the {len(keys)} variables in the checkpoint")
    return kept


def new_names(names: Sequence[str], renames: Sequence[Rename]) -> dict[str, str]:
    """Old name -> new name, by all rules one after the other.

    Raises:
      ToolError: a rule is for none of them, two would be called the same, or one is given no name.
    """
    new = {name: name for name in names}
    for rule in renames:
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
