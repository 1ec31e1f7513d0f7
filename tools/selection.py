"""Which variables of a checkpoint a command keeps, and what it calls them: flags, and the work."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from cli.fields import REPEATED, each, flag
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

    `new` may be empty for a scope that is taken away; ValueError where it is no such rule.
    """
    old, equals, new = text.partition("=")
    is_scope = old.endswith("/")
    is_new_scope = not new or new.endswith("/")
    if not equals or not old.strip("/") or is_scope != is_new_scope:
        raise ValueError("expected old=new for a name, old/=new/ or old/= for a scope")
    pattern = re.compile(rf"\A{re.escape(old)}" + ("" if is_scope else r"\Z"))
    return Rename(f"--rename={text}", pattern, new.replace("\\", r"\\"))


def regex_rename(text: str) -> Rename:
    r"""A rule such as `^conv(\d)/=layer\1/`, divided by the last `=`; ValueError for no rule."""
    old, equals, new = text.rpartition("=")
    if not equals or not old:
        raise ValueError("expected pattern=replacement")
    pattern = as_pattern(old)
    try:
        pattern.sub(new, "")  # What the replacement takes has to be there.
    except (re.error, IndexError) as error:
        raise ValueError(str(error)) from error
    return Rename(f"--rename_regex={text}", pattern, new)


def renames(help_text: str, parse: Callable[[str], Rename]) -> Any:
    """The field of rules, which are applied in their order."""
    return flag(
        help_text,
        (),
        many=REPEATED,
        group="selection",
        check=each(parse),
        convert=lambda texts: tuple(map(parse, texts)),
    )


def patterns(help_text: str) -> Any:
    """The field of regular expressions that are looked for in names."""
    return flag(help_text, (), many=REPEATED, group="selection", check=each(as_pattern))


def select(
    keys: Sequence[str],
    slots: Collection[str],
    only: Sequence[str] = (),
    drop: Sequence[str] = (),
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
