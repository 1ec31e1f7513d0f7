"""Shows what a checkpoint holds, or which checkpoints a folder holds.

  python -m tools.inspect_checkpoint model1

lists the checkpoints of a folder: step, time, size, the newest, the best, and whether its state
file is right. One checkpoint, by its prefix or any of its files, is listed tensor by tensor: names,
dtypes, shapes, sizes, and which only the optimizer needs. For that its values are not read, however
large it is; --tensor reads those it names, --stats all that are listed.

  python -m tools.inspect_checkpoint model1/my-model-200
  python -m tools.inspect_checkpoint model1/my-model-200.meta --stats --filter=^conv1/
  python -m tools.inspect_checkpoint model --tensor=w:0,b:0 --format=json
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from collections.abc import Sequence
from dataclasses import dataclass

from absl import flags

from cli.flag_types import define_max_meta_mb, define_time_limit
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import EndAfter, define_ckpt, define_filter, define_format, run_command

POSITIONAL = ("ckpt",)


@dataclass(frozen=True)
class InspectConfig(Limits):
    """What is asked for.

    Attributes:
      ckpt: a checkpoint, or a folder.
      tensors: names of those whose values are wanted.
      stats: whether statistics are wanted.
      filter: a regular expression that the names of the listed tensors match somewhere.
      format: of what is printed, `text` or `json`; as text, a value is shortened.
    """

    ckpt: str
    tensors: Sequence[str] = ()
    stats: bool = False
    filter: str | None = None
    format: str = "text"


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_ckpt(
        values,
        "A checkpoint: its prefix or any file of it, of TensorFlow's formats V1 and V2; the folder "
        "of a SavedModel; or a folder of checkpoints, for their list, or with one of the flags "
        "below for the newest.",
    )
    flags.DEFINE_list(
        "tensor",
        [],
        "Tensors whose values to print: keys of the checkpoint, or variables of its graph; name:0 "
        "means name.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "stats",
        False,
        "Also the least and greatest value, mean and standard deviation of the finite values of "
        "each tensor, and how many are NaN or infinite.",
        flag_values=values,
    )
    define_filter(values, "Only list tensors whose names this regular expression is found in.")
    define_format(values)
    define_max_meta_mb(values)
    define_time_limit(values)
    _validate(values)


def _validate(values: flags.FlagValues) -> None:
    flags.register_validator(
        "tensor", all, message="must be names, separated by commas", flag_values=values
    )
    flags.register_multi_flags_validator(
        ["tensor", "filter"],
        lambda both: not both["tensor"] or both["filter"] is None,
        message="--tensor names tensors, --filter narrows the list: give one of them",
        flag_values=values,
    )


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Inspects as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from tools.checkpoint_inspection import as_text, inspect
    from tools.command import show

    record = inspect(
        InspectConfig(
            ckpt=values.ckpt,
            tensors=values.tensor,
            stats=values.stats,
            filter=values.filter,
            format=values.format,
            max_meta_bytes=values.max_meta_mb << 20,
            time_limit=values.time_limit,
            end_after=end_after,
        )
    )
    show(record, as_text, values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
