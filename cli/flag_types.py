"""Flags with a range, and the flags of the scripts that read a model from elsewhere.

They are checked when they are parsed: before TensorFlow is imported.
"""

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


# Flags of the scripts that read models and images from elsewhere: what those may do and take.

_MOST_MB = 2048  # Protobuf's own limit.
_LIMITED = (
    "Seconds that one run of the graph may take, such as one that waits for a queue that nobody "
    "fills, and likewise reading and importing it"
)


def define_max_meta_mb(values: flags.FlagValues) -> None:
    """Defines the size of the largest graph that is read."""
    flags.DEFINE_integer(
        "max_meta_mb",
        512,
        "The size of the largest file of a graph that is read, in MiB.",
        lower_bound=1,
        upper_bound=_MOST_MB,
        flag_values=values,
    )


def define_max_input_mb(values: flags.FlagValues) -> None:
    """Defines what one file of rows may take in memory."""
    flags.DEFINE_integer(
        "max_input_mb",
        4096,
        "MiB that one file of --input or --feed may unpack to.",
        lower_bound=1,
        flag_values=values,
    )


def define_trust_graph(values: flags.FlagValues) -> None:
    """Defines whether operations that may do more than compute are run."""
    flags.DEFINE_boolean(
        "trust_graph",
        False,
        "Run also operations that may do more than compute, such as reading files; by default "
        "they are refused.",
        flag_values=values,
    )


def define_time_limit(values: flags.FlagValues, limited: str = _LIMITED) -> None:
    """Defines the seconds that a graph may take; `limited` says for what."""
    flags.DEFINE_float(
        "time_limit",
        60.0,
        f"{limited}; 0 for no limit.",
        lower_bound=0.0,
        flag_values=values,
    )
    flags.register_validator(
        "time_limit",
        math.isfinite,
        message="must be a finite number of seconds",
        flag_values=values,
    )


def define_ignore_exif(values: flags.FlagValues) -> None:
    """Defines whether image files stay as they are stored."""
    flags.DEFINE_boolean(
        "ignore_exif",
        False,
        "Take the pixels of image files as they are stored; by default images are turned as their "
        "EXIF orientation says, as viewers do.",
        flag_values=values,
    )


def define_asset(values: flags.FlagValues, help_text: str) -> None:
    """Defines the files that lookup tables are filled from, each as `name=path`."""
    define_paths("asset", help_text, values)
    flags.register_validator(
        "asset",
        lambda texts: all(name and path for name, _, path in (t.partition("=") for t in texts)),
        message="must be name=path",
        flag_values=values,
    )
