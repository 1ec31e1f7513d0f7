"""Verifies checkpoints: every one of a folder, or the one that is named.

  python -m tools.verify model1

compares each checkpoint's files with its manifest, reads every tensor against TensorFlow's
checksums, and sees that it can be restored into its own graph; nothing of that graph is run. Then
it looks at the state file and at what interrupted saves have left. A stranger's checkpoints have no
manifest, which is said. The exit code is 0 where all is well, and 1 where anything is wrong.

  python -m tools.verify model1 --repair
  python -m tools.verify model1/my-model-200 --format=json

With --repair, the folder's leftovers are cleared and a lost or damaged state file is written anew;
no checkpoint is changed, whole or damaged. A folder that is being trained is left alone.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import dataclass

from absl import flags

from cli.flag_types import define_max_meta_mb, define_time_limit
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import EndAfter, define_ckpt, define_format, run_command

POSITIONAL = ("ckpt",)


@dataclass(frozen=True)
class VerifyConfig(Limits):
    """What is asked for.

    Attributes:
      path: a folder for all of its checkpoints, or what `find_variables` takes for one.
      repair: whether to put the folder right.
    """

    path: str
    repair: bool = False


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_ckpt(
        values,
        "A folder for every checkpoint of it, or one checkpoint: its prefix or any file of it; the "
        "folder of a SavedModel for its variables.",
    )
    flags.DEFINE_boolean(
        "repair",
        False,
        "Clear what interrupted saves have left in the folder, and write its state file anew where "
        "that is lost or damaged.",
        flag_values=values,
    )
    define_format(values)
    define_max_meta_mb(values)
    define_time_limit(values, "Seconds that reading and importing one graph may take")


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> int:
    """Verifies as the flags say; 0 where all is well."""
    import_tensorflow()
    from tools.command import show
    from tools.verifying import as_text, verify

    record = verify(
        VerifyConfig(
            path=values.ckpt,
            repair=values.repair,
            max_meta_bytes=values.max_meta_mb << 20,
            time_limit=values.time_limit,
            end_after=end_after,
        )
    )
    show(record, as_text, values.format)
    return 0 if record["ok"] else 1


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
