"""Flags with a range, and paths; checked when they are parsed: before TensorFlow is imported."""

import math
import os

from absl import flags

_LARGEST_FLOAT32 = 3.4028234e38
_SMALLEST_FLOAT32 = 2.0**-126  # Of the normal ones: those below lose digits, or become 0.


def define_positive_float(
    name: str, default: float | None, help_text: str, values: flags.FlagValues
) -> None:
    """Defines a float flag above 0 (absl's lower_bound lets NaN pass), as a float32 too.

    This one and the next add their range to the help.
    """
    flags.DEFINE_float(name, default, f"{help_text} Above 0.", flag_values=values)
    flags.register_validator(
        name,
        lambda value: value is None or (value > 0 and is_normal_float32(value)),
        message="must be a finite number above 0 that a float32 can hold, from 1.2e-38 to 3.4e38",
        flag_values=values,
    )


def is_normal_float32(value: float) -> bool:
    """Whether a float32 holds it with all its digits: not as infinity, nor as 0 or nearly so."""
    return _SMALLEST_FLOAT32 <= abs(value) <= _LARGEST_FLOAT32


def define_non_negative_float(
    name: str, default: float, help_text: str, values: flags.FlagValues, below: float = math.inf
) -> None:
    """Defines a float flag in [0, below); NaN and infinity are refused."""
    limit = "" if math.isinf(below) else f" and below {below:g}"
    flags.DEFINE_float(name, default, f"{help_text} From 0{limit}.", flag_values=values)
    flags.register_validator(
        name,
        lambda value: 0 <= value < below,
        message=f"must be a number from 0{limit}",
        flag_values=values,
    )


def define_finite_float(
    name: str, default: float | None, help_text: str, values: flags.FlagValues
) -> None:
    """Defines a float flag that must be finite, as a float32 too, where it is given."""
    flags.DEFINE_float(name, default, help_text, flag_values=values)
    flags.register_validator(
        name,
        lambda value: value is None or abs(value) <= _LARGEST_FLOAT32,
        message="must be a finite number that a float32 can hold",
        flag_values=values,
    )


def define_path(name: str, default: str | None, help_text: str, values: flags.FlagValues) -> None:
    """Defines a path flag that must not be empty."""
    flags.DEFINE(_PathParser(), name, default, help_text, flag_values=values)
    flags.register_validator(
        name, lambda value: value != "", message="must not be empty", flag_values=values
    )


def define_paths(name: str, help_text: str, values: flags.FlagValues) -> None:
    """Defines a flag that may be repeated, of paths or of `name=path`."""
    flags.DEFINE_multi(_NamedPathParser(), flags.ArgumentSerializer(), name, [], help_text, values)


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
