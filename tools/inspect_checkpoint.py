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
from typing import ClassVar

from cli.fields import COMMAS, Check, Together, flag
from cli.terminal import postpone_tensorflow
from prediction.request import Limits
from tools.command import Printed, checkpoint, name_filter, run_command, show


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Printed, Limits):
    """A checkpoint or a folder, and what is wanted of it."""

    GROUP: ClassVar = "selection"
    CHECKS: ClassVar = (
        Together(
            ("tensor", "filter"),
            lambda tensors, pattern: not tensors or pattern is None,
            "--tensor names tensors, --filter narrows the list: give one of them",
        ),
    )

    ckpt: str = checkpoint(
        "A checkpoint: its prefix or any file of it, of TensorFlow's formats V1 and V2; the folder "
        "of a SavedModel; or a folder of checkpoints, for their list, or with one of the flags "
        "below for the newest."
    )
    tensors: Sequence[str] = flag(
        "Tensors whose values to print: keys of the checkpoint, or variables of its graph that are "
        "saved whole; name:0 means name.",
        (),
        name="tensor",
        many=COMMAS,
        check=Check(all, "must be names, separated by commas"),
    )
    stats: bool = flag(
        "Also the least and greatest value, mean and standard deviation of the finite values of "
        "each tensor, and how many are NaN or infinite.",
        False,
    )
    filter: str | None = name_filter(
        "Only list tensors whose names this regular expression is found in.", None
    )


def main(config: InspectConfig) -> None:
    """Inspects what is asked for."""
    postpone_tensorflow()
    from tools.checkpoint_inspection import as_text, inspect

    show(inspect(config), as_text, config.format)


if __name__ == "__main__":
    run_command(main, InspectConfig, __doc__)
