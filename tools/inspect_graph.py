"""Shows what the graph of a model holds, part by part; nothing of it is run.

  python -m tools.inspect_graph model1/my-model-200.meta
  python -m tools.inspect_graph model1 --part=cost,safety
  python -m tools.inspect_graph model1 --node=fc2/add
  python -m tools.inspect_graph model1 --as_text=graph.pbtxt
  python -m tools.inspect_graph model1 --dot=layers.dot

The model is a .meta file, a folder for its newest checkpoint, a frozen graph (.pb) or a
SavedModel. --png draws the layers where Graphviz is installed. FLOPs count a multiplication and
the addition after it as two, as TensorFlow's profiler does.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.fields import COMMAS, Check, flag
from cli.terminal import postpone_tensorflow
from prediction.request import Limits, meta, signature
from tools.command import Printed, overwrite, run_command, show

PARTS = ("info", "graph", "saver", "collections", "signatures", "functions", "cost", "safety")


@dataclass(frozen=True, kw_only=True)
class GraphInspection(Printed, Limits):
    """A graph, what to show of it, and the files to write."""

    GROUP: ClassVar = "selection"

    meta: str = meta()
    parts: Sequence[str] = flag(
        f"What to show of {', '.join(PARTS)}; by default all.",
        (),
        name="part",
        many=COMMAS,
        check=Check(
            lambda names: set(names) <= set(PARTS),
            f"must be of {', '.join(PARTS)}, separated by commas",
        ),
    )
    node: str | None = flag(
        "A node to show: its operation and attributes, what it takes, who takes what it gives.",
        None,
        path=True,
    )
    fetch: Sequence[str] = flag(
        "The tensors that are the prediction, for the parts cost and safety and for a drawing; by "
        "default the collection 'predict', the signature's outputs, or the likeliest output.",
        (),
        many=COMMAS,
    )
    signature: str | None = signature()
    batch_size: int = flag("Rows, for the FLOPs.", 1, low=1)
    depth: int | None = flag(
        "How many name scopes make a layer, the outer ones; by default all, or in a drawing so "
        "many that it can be read.",
        None,
        low=1,
    )
    as_text: str | None = flag(
        "A file to write the whole MetaGraphDef to as text, such as graph.pbtxt; predict.py "
        "graph.pbtxt --ckpt=... reads it.",
        None,
        path=True,
        group="output",
    )
    dot: str | None = flag(
        "A file to draw the layers in, for Graphviz.", None, path=True, group="output"
    )
    png: str | None = flag(
        "A picture of the layers; takes Graphviz's program 'dot'.", None, path=True, group="output"
    )
    overwrite: bool = overwrite("Replace files that are there already.")

    @property
    def targets(self) -> dict[str, str]:
        """The files to write, by flag."""
        named = {"as_text": self.as_text, "dot": self.dot, "png": self.png}
        return {flag: path for flag, path in named.items() if path is not None}


def main(config: GraphInspection) -> None:
    """Looks at the graph that is asked for."""
    postpone_tensorflow()
    from tools.graph_inspection import as_text, inspect_graph

    show(inspect_graph(config), as_text, config.format)


if __name__ == "__main__":
    run_command(main, GraphInspection, __doc__)
