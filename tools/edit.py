r"""Writes a new checkpoint from an old one: some variables, under other names, in less space.

  python -m tools.edit model1 --output=weights/cnn --without_slots

keeps what predicts of the newest checkpoint in model1, and leaves what only its optimizer needs. A
graph that calls its layers otherwise restores what has been given its names:

  python -m tools.edit model1 --output=layers/cnn --only='^conv\d/' --rename_regex='^conv=layer'

With --meta the graph goes along. All that names a node or a variable has the new names as well:
nodes, inputs, collections, signatures, and the saver, by which a stock client restores.

  python -m tools.edit --meta=model1 --output=half/cnn --without_slots --cast=float16
  python -m tools.edit --meta=model1 --output=named/cnn --rename=fc1/=hidden/ --rename=x=images

Where it needs less than all variables, the graph is pruned to what predicts: its collection
'predict' and its signature, or what --fetch names. --cast rounds what is stored; in the graph, the
variables keep their dtype, and their saver casts what it restores. Before anything is kept, the old
and the new one run on the same random batch: without --cast they have to give the same bytes.

The new checkpoint has no manifest, as no trainer wrote it: whoever continues from it compares names
and shapes. Partitioned variables are written whole. One of more than 128 MiB has several data
files.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from absl import flags

from cli import flag_types
from cli.flag_types import define_asset, define_max_meta_mb, define_time_limit, define_trust_graph
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import (
    EndAfter,
    as_pattern,
    define_ckpt,
    define_format,
    define_meta,
    define_overwrite,
    run_command,
)
from tools.edit_rules import Rename, plain_rename, regex_rename

POSITIONAL = ("ckpt|meta",)
_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class EditConfig(Limits):
    """What is asked for.

    Attributes:
      output: the prefix of the new checkpoint.
      checkpoint: what `find_variables` takes; None for that of the graph.
      meta: what `open_model` takes, where the graph goes along; None where it does not.
      overwrite: whether a checkpoint at `output` may be replaced.
      only: patterns of the keys that are kept; none for all.
      drop: patterns of keys that are not.
      without_slots: whether those of an optimizer are not.
      renames: in the order in which they are applied.
      cast: the name of the dtype that floating numbers get; None where they keep theirs.
      allow_overflow: whether numbers that are too large for it become infinities.
      fetch: the tensors, or keys of the signature, that the graph has to predict; none for its own.
      asset: files for lookup tables, by name.
      tolerance: how far numbers may be apart after a cast; None for 16 epsilons of the dtype.
      feed: values for the check, as `prediction.plan.read_feeds` takes them.
      trust_graph: run also operations that may do more than compute.
    """

    output: str
    checkpoint: str | None = None
    meta: str | None = None
    overwrite: bool = False
    only: Sequence[str] = ()
    drop: Sequence[str] = ()
    without_slots: bool = False
    renames: Sequence[Rename] = ()
    cast: str | None = None
    allow_overflow: bool = False
    fetch: Sequence[str] = ()
    feed: Sequence[str] = ()
    asset: Mapping[str, str] = field(default_factory=dict)
    tolerance: float | None = None
    trust_graph: bool = False


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_ckpt(values)
    define_meta(values)
    flag_types.define_path(
        "output", None, "The prefix of the new checkpoint; its folder is made.", values
    )
    flags.mark_flag_as_required("output", flag_values=values)
    define_overwrite(values, "Replace a checkpoint that is at --output.")
    _define_selection(values)
    _define_names(values)
    _define_cast(values)
    _define_check(values)
    define_format(values)


def _define_selection(values: flags.FlagValues) -> None:
    """Which variables are kept."""
    flags.DEFINE_multi_string(
        "only",
        [],
        "Keep only names in which this pattern is found. Several: any of them.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "drop",
        [],
        "Drop names in which this pattern is found. Several: any of them.",
        flag_values=values,
    )
    for name in ("only", "drop"):
        _validate(name, as_pattern, values)
    flags.DEFINE_boolean(
        "without_slots",
        False,
        "Drop what only an optimizer needs, such as w/Adam and beta1_power.",
        flag_values=values,
    )


def _define_names(values: flags.FlagValues) -> None:
    """What they are called."""
    flags.DEFINE_multi_string(
        "rename",
        [],
        "old=new for one name, old/=new/ for all in a scope (old/= takes the scope away). Several "
        "are applied in their order.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "rename_regex",
        [],
        r"pattern=replacement, as in '^conv(\d)/=layer\1/', wherever it is found in a name. They "
        "come after all of --rename; the last = divides.",
        flag_values=values,
    )
    _validate("rename", plain_rename, values)
    _validate("rename_regex", regex_rename, values)


def _define_cast(values: flags.FlagValues) -> None:
    """How they are stored."""
    flags.DEFINE_enum(
        "cast",
        None,
        _DTYPES,
        "Store floating numbers of any of these kinds in this one, rounded to the nearest.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "allow_overflow",
        False,
        "Make infinities of numbers that are too large for --cast; by default they are an error.",
        flag_values=values,
    )


def _define_check(values: flags.FlagValues) -> None:
    """What the graph has to predict as before, and how that is found out."""
    flags.DEFINE_list(
        "fetch",
        [],
        "With --meta, the tensors that the new graph has to compute, by name. Also keys of the "
        "signature. By default the collection 'predict' and the signature's outputs.",
        flag_values=values,
    )
    flag_types.define_paths(
        "feed",
        "With --meta, values to compare the two with, for inputs for which random ones will not "
        "do: name=file.npy, name=literal, or a .npz whose keys are tensor names.",
        values,
    )
    define_asset(
        values,
        "With --meta, a file that a lookup table is filled from: name=path, as of predict.py.",
    )
    flag_types.define_positive_float(
        "tolerance",
        None,
        "With --meta and --cast, how far numbers may be apart, as a part of the largest of their "
        "output. By default 16 epsilons of the kind of number, such as 0.016 for float16.",
        values,
    )
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values)
    for name in ("fetch", "feed", "asset", "tolerance"):
        _validate_needs(name, "meta", values)
    for name in ("tolerance", "allow_overflow"):
        _validate_needs(name, "cast", values)


def _validate_needs(name: str, other: str, values: flags.FlagValues) -> None:
    """Has one flag be given only with another, without which it would change nothing."""
    flags.register_multi_flags_validator(
        [name, other],
        lambda both: not both[name] or both[other] is not None,
        message=f"--{name} needs --{other}",
        flag_values=values,
    )


def _validate(name: str, parse: Callable[[str], object], values: flags.FlagValues) -> None:
    """Has each of a flag's texts be one that `parse` takes."""

    def check(texts: Sequence[str]) -> bool:
        for text in texts:
            try:
                parse(text)
            except ValueError as error:
                raise flags.ValidationError(f"{text!r}: {error}") from error
        return True

    flags.register_validator(name, check, flag_values=values)


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Edits as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from prediction.plan import assets_by_name
    from tools.command import show
    from tools.editing import as_text, edit

    plain, by_regex = map(plain_rename, values.rename), map(regex_rename, values.rename_regex)
    record = edit(
        EditConfig(
            output=values.output,
            checkpoint=values.ckpt,
            meta=values.meta,
            overwrite=values.overwrite,
            only=values.only,
            drop=values.drop,
            without_slots=values.without_slots,
            renames=[*plain, *by_regex],
            cast=values.cast,
            allow_overflow=values.allow_overflow,
            fetch=values.fetch,
            feed=values.feed,
            asset=assets_by_name(values.asset),
            tolerance=values.tolerance,
            trust_graph=values.trust_graph,
            time_limit=values.time_limit,
            end_after=end_after,
            max_meta_bytes=values.max_meta_mb << 20,
        )
    )
    show(record, as_text, values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
