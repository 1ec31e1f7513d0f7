"""Verifies checkpoints: every one of a folder, or the one that is named.

  python -m tools.verify model1

compares each checkpoint's files with its manifest, reads every tensor against TensorFlow's
checksums, and sees that it has what its own graph restores; nothing of that graph is run. Then
it looks at the state file and at what interrupted saves have left. A stranger's checkpoints have no
manifest, which is said. The exit code is 0 where all is well, and 1 where anything is wrong.

  python -m tools.verify model1 --deep
  python -m tools.verify model1 --repair
  python -m tools.verify model1/my-model-200 --format=json

TensorFlow is needed with --deep alone, which imports the graphs as well, as every client does: so
one is found that is put together wrongly, or has operations that this TensorFlow lacks.

With --repair, the folder's leftovers are cleared and a lost or damaged state file is written anew;
no checkpoint is changed, whole or damaged. A folder that is being trained is refused.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import dataclass
from typing import ClassVar

from cli.fields import flag
from cli.terminal import import_tensorflow, postpone_tensorflow
from prediction.request import Limits
from tools.command import Printed, checkpoint, run_command, show


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Printed, Limits):
    """What is to be verified, and whether it is to be put right."""

    GROUP: ClassVar = "selection"

    path: str = checkpoint(
        "A folder for every checkpoint of it, or one checkpoint: its prefix or any file of it; the "
        "folder of a SavedModel for its variables."
    )
    deep: bool = flag("Also see that TensorFlow can import the graphs.", False)
    repair: bool = flag(
        "Clear what interrupted saves have left in the folder, and write its state file anew where "
        "that is lost or damaged.",
        False,
    )


def main(config: VerifyConfig) -> int:
    """Verifies what is asked for; 0 where all is well."""
    if config.deep:
        import_tensorflow()
    postpone_tensorflow()
    from tools.verifying import as_text, verify

    record = verify(config)
    show(record, as_text, config.format)
    return 0 if record["ok"] else 1


if __name__ == "__main__":
    run_command(main, VerifyConfig, __doc__)
