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

from absl import flags

from cli import flag_types
from cli.flag_types import define_max_meta_mb, define_time_limit
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import EndAfter, define_filter, define_format, run_command

POSITIONAL = ("a", "b")
_SIDE = (
    "checkpoint (its prefix, a file of it, or a folder for its newest), frozen graph or SavedModel"
)


@dataclass(frozen=True)
class DiffConfig(Limits):
    """What is asked for.

    Attributes:
      a: what `open_side` takes.
      b: likewise.
      only: `VARIABLES` or `GRAPH`; None for all that both have.
      tolerance: an absolute difference of values up to this counts as none.
      filter: a regular expression; only variables and nodes in whose name it is found.
    """

    a: str
    b: str
    only: str | None = None
    tolerance: float = 0.0
    filter: str = ""


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    flag_types.define_path("a", None, f"The first {_SIDE}.", values)
    flag_types.define_path("b", None, f"The second {_SIDE}.", values)
    flags.DEFINE_enum(
        "only",
        None,
        ["variables", "graph"],
        "Compare nothing else; by default all that both have.",
        flag_values=values,
    )
    flag_types.define_non_negative_float(
        "tolerance", 0.0, "An absolute difference of values up to this counts as none.", values
    )
    define_filter(
        values, "A regular expression: compare only variables and nodes in whose name it is found."
    )
    define_format(values)
    define_max_meta_mb(values)
    define_time_limit(values, "Seconds that reading one graph may take")


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> int:
    """Compares as the flags say; 0 where nothing differs."""
    import_tensorflow()
    from tools.command import show
    from tools.comparing import as_text, diff

    record = diff(
        DiffConfig(
            a=values.a,
            b=values.b,
            only=values.only,
            tolerance=values.tolerance,
            filter=values.filter or "",
            max_meta_bytes=values.max_meta_mb << 20,
            time_limit=values.time_limit,
            end_after=end_after,
        )
    )
    show(record, as_text, values.format)
    return 1 if record["differ"] else 0


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
