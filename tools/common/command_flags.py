"""Flags that several commands have, under one name and with one meaning."""

from absl import flags

from cli import flag_types

META_HELP = (
    "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
    "newest checkpoint; a frozen graph (.pb), or the folder of a SavedModel."
)
CKPT_HELP = "A checkpoint: its prefix or any file of it, or a folder for its newest."


def define_meta(values: flags.FlagValues) -> None:
    """Defines --meta, as predict.py has it; to be named in `positional` where it must be given."""
    flag_types.define_path("meta", None, META_HELP, values)


def define_ckpt(values: flags.FlagValues, help_text: str = CKPT_HELP) -> None:
    """Defines --ckpt; to be named in `positional` where it must be given."""
    flag_types.define_path("ckpt", None, help_text, values)


def define_format(values: flags.FlagValues) -> None:
    """Defines --format."""
    flags.DEFINE_enum("format", "text", ["text", "json"], "Of what is printed.", flag_values=values)
