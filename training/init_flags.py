"""The flags of a run that begins with the values of another checkpoint, and what they ask for."""

import re

from absl import flags

from cli import flag_types
from training.config import InitFrom


def define_init_flags(values: flags.FlagValues) -> None:
    """Defines --init_from, --assign and --exclude in `values`."""
    flag_types.define_path(
        "init_from",
        None,
        "A checkpoint's prefix, or a folder for its newest: the run begins with its values, by "
        "name, in place of initial ones. All variables but an optimizer's have to be in both.",
        values,
    )
    flags.DEFINE_multi_string(
        "assign",
        [],
        "With --init_from: old_scope/=new_scope/ takes only what is in old_scope/ there, for "
        "new_scope/ here; without slashes it names one variable. May be repeated.",
        flag_values=values,
    )
    define_exclude_flag(values, "With --init_from: variables that stay new")
    flags.register_validator(
        "assign",
        lambda rules: all(_is_rule(rule) for rule in rules),
        message="must be old_scope/=new_scope/ or old_name=new_name",
        flag_values=values,
    )
    flags.register_multi_flags_validator(
        ["init_from", "assign", "exclude"],
        lambda given: given["init_from"] or not (given["assign"] or given["exclude"]),
        message="--assign and --exclude need --init_from",
        flag_values=values,
    )


def define_exclude_flag(values: flags.FlagValues, help_text: str) -> None:
    """Defines --exclude, a regular expression, in `values`."""
    flags.DEFINE_string(
        "exclude",
        None,
        f"{help_text}; a regular expression that matches their whole names.",
        flag_values=values,
    )
    flags.register_validator(
        "exclude",
        lambda pattern: pattern is None or _is_pattern(pattern),
        message="must be a regular expression",
        flag_values=values,
    )


def init_from(values: flags.FlagValues) -> InitFrom | None:
    """What the parsed flags ask for; None where they ask for nothing, or are not defined."""
    if "init_from" not in values or values.init_from is None:
        return None
    rules = (rule.partition("=") for rule in values.assign)
    return InitFrom(values.init_from, tuple((old, new) for old, _, new in rules), values.exclude)


def _is_rule(rule: str) -> bool:
    """Whether both sides are scopes (or empty, for all there is), or both are names."""
    old, equals, new = rule.partition("=")
    are_scopes = [not side or side.endswith("/") for side in (old, new)]
    return bool(equals) and "=" not in new and are_scopes[0] == are_scopes[1]


def _is_pattern(text: str) -> bool:
    try:
        return bool(text) and re.compile(text) is not None
    except re.error:
        return False
