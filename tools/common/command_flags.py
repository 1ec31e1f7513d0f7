"""Flags that several commands have, under one name and with one meaning."""

from absl import flags

from cli import flag_types
from cli.model_flags import define_asset
from tools.common.patterns import as_pattern

META_HELP = (
    "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
    "newest checkpoint; a frozen graph (.pb), or the folder of a SavedModel."
)
CKPT_HELP = "A checkpoint: its prefix or any file of it, or a folder for its newest."
OTHER_CKPT_HELP = (
    "The checkpoint to take the variables from, where that is another than the graph's own; 'best' "
    "for the one with the best test accuracy."
)
OVERWRITE_HELP = "Replace the file if there is one."


def define_meta(values: flags.FlagValues) -> None:
    """Defines --meta, as predict.py has it; to be named in `positional` where it must be given."""
    flag_types.define_path("meta", None, META_HELP, values)


def define_ckpt(values: flags.FlagValues, help_text: str = CKPT_HELP) -> None:
    """Defines --ckpt; to be named in `positional` where it must be given."""
    flag_types.define_path("ckpt", None, help_text, values)


def define_format(values: flags.FlagValues) -> None:
    """Defines --format."""
    flags.DEFINE_enum("format", "text", ["text", "json"], "Of what is printed.", flag_values=values)


def define_overwrite(values: flags.FlagValues, help_text: str = OVERWRITE_HELP) -> None:
    """Defines --overwrite."""
    flags.DEFINE_boolean("overwrite", False, help_text, flag_values=values)


def define_part(values: flags.FlagValues) -> None:
    """Defines which part of a graph is kept: --outputs, --inputs, --signature and --asset."""
    flags.DEFINE_list(
        "outputs",
        [],
        "The tensors that the result is to compute, by name or key of the signature. By default "
        "the collection 'predict' and the signature's outputs.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "inputs",
        [],
        "Tensors at which the graph is cut, by name or key of the signature: they become "
        "placeholders. By default it has the signature's inputs, its own placeholders, and what "
        "comes out of queues and iterators.",
        flag_values=values,
    )
    for name in ("outputs", "inputs"):
        flags.register_validator(
            name,
            all,
            message="must be tensor names, separated by commas",
            flag_values=values,
        )
    define_signature(values)
    define_asset(
        values,
        "A file that a lookup table is filled from: name=path, as predict.py takes it. The result "
        "holds its content.",
    )


def define_signature(values: flags.FlagValues) -> None:
    """Defines --signature, as predict.py has it."""
    flags.DEFINE_string(
        "signature",
        None,
        "The signature whose inputs and outputs are meant; serving_default, or the only one, "
        "unless named here.",
        flag_values=values,
    )


def define_filter(values: flags.FlagValues, help_text: str) -> None:
    """Defines --filter, a regular expression that is looked for in names."""
    flags.DEFINE_string("filter", None, help_text, flag_values=values)
    flags.register_validator("filter", _is_pattern_or_none, flag_values=values)


def _is_pattern_or_none(text: str | None) -> bool:
    try:
        as_pattern(text or "")
    except ValueError as error:
        raise flags.ValidationError(f"must be a regular expression: {error}") from error
    return True
