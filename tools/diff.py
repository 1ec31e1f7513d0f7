"""Compares two checkpoints: variables by name and value, graphs node by node.

  python -m tools.diff model1/my-model-190 model1/my-model-200 --only=graph
  python -m tools.diff model1/my-model-190 model1/my-model-200 --filter=conv./w$ --tolerance=0.1

A and B are each a checkpoint (its prefix or any file of it), a folder for its newest, a frozen
graph (.pb) or the folder of a SavedModel. What both have is compared: of variables those in one
only, changes of shape or dtype, and the largest difference |a - b|, also relative to the larger of
|a| and |b|; of graphs the nodes, functions, signatures and collections that were added, removed or
changed. A NaN is equal to a NaN. Nothing of a graph is run.

The exit code is 0 where there is no difference, and 1 where there is one; it is 1 as well where
something cannot be read, with a line on stderr and none on stdout.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import dataclass
from typing import ClassVar

from cli.fields import flag, from_zero
from cli.terminal import postpone_tensorflow
from prediction.request import Limits
from tools.command import Printed, name_filter, run_command, show

_SIDE = (
    "checkpoint (its prefix, a file of it, or a folder for its newest), frozen graph or SavedModel"
)


@dataclass(frozen=True, kw_only=True)
class DiffConfig(Printed, Limits):
    """Two models, and what of them is compared."""

    GROUP: ClassVar = "selection"

    a: str = flag(f"The first {_SIDE}.", path=True, positional=True, group="model")
    b: str = flag(f"The second {_SIDE}.", path=True, positional=True, group="model")
    only: str | None = flag(
        "Compare nothing else; by default all that both have.",
        None,
        choices=("variables", "graph"),
    )
    tolerance: float = flag(
        "An absolute difference of values up to this counts as none.", 0.0, check=from_zero()
    )
    filter: str = name_filter(
        "A regular expression: compare only variables and nodes in whose name it is found.", ""
    )


def main(config: DiffConfig) -> int:
    """Compares the two; 0 where nothing differs."""
    postpone_tensorflow()
    from tools.comparing import as_text, diff

    record = diff(config)
    show(record, as_text, config.format)
    return 1 if record["differ"] else 0


if __name__ == "__main__":
    run_command(main, DiffConfig, __doc__)
