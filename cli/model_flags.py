"""Flags of the scripts that read models and images from elsewhere: what those may do and take."""

import math

from absl import flags

from cli.flag_types import define_paths

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
