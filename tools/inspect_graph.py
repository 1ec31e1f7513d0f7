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

from absl import flags

from cli import flag_types
from cli.flag_types import define_max_meta_mb, define_time_limit
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import (
    PARTS,
    EndAfter,
    define_format,
    define_meta,
    define_overwrite,
    define_signature,
    run_command,
    show,
)

POSITIONAL: tuple[str, ...] = ("meta",)


@dataclass(frozen=True)
class GraphInspection(Limits):
    """What is asked for.

    Attributes:
      meta: what `open_model` takes.
      parts: of `PARTS`; none stands for all, or for none where a file is to be written.
      node: a node to show in their place; None for none.
      fetch: the outputs that are the prediction; none for the file's own.
      signature: the signature whose inputs and outputs are meant; None as for predict.py.
      batch_size: rows, for the FLOPs.
      depth: how many name scopes make a layer; None for all.
      as_text, dot, png: files to write; None for none.
      overwrite: whether they may be there already.
    """

    meta: str
    parts: Sequence[str] = ()
    node: str | None = None
    fetch: Sequence[str] = ()
    signature: str | None = None
    batch_size: int = 1
    depth: int | None = None
    as_text: str | None = None
    dot: str | None = None
    png: str | None = None
    overwrite: bool = False

    @property
    def targets(self) -> dict[str, str]:
        """The files to write, by flag."""
        named = {"as_text": self.as_text, "dot": self.dot, "png": self.png}
        return {flag: path for flag, path in named.items() if path is not None}


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_meta(values)
    flags.DEFINE_list(
        "part", [], f"What to show of {', '.join(PARTS)}; by default all.", flag_values=values
    )
    flags.register_validator(
        "part",
        lambda names: set(names) <= set(PARTS),
        message=f"must be of {', '.join(PARTS)}, separated by commas",
        flag_values=values,
    )
    flag_types.define_path(
        "node",
        None,
        "A node to show: its operation and attributes, what it takes, who takes what it gives. Of "
        "a function, function/node.",
        values,
    )
    flags.DEFINE_list(
        "fetch",
        [],
        "The tensors that are the prediction, for the parts cost and safety and for a drawing; by "
        "default the collection 'predict', the signature's outputs, or the likeliest output.",
        flag_values=values,
    )
    define_signature(values)
    flags.DEFINE_integer("batch_size", 1, "Rows, for the FLOPs.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "depth",
        None,
        "How many name scopes make a layer, the outer ones; by default all, or in a drawing so "
        "many that it can be read.",
        lower_bound=1,
        flag_values=values,
    )
    _define_files(values)
    define_format(values)
    define_max_meta_mb(values)
    define_time_limit(values)


def _define_files(values: flags.FlagValues) -> None:
    flag_types.define_path(
        "as_text",
        None,
        "A file to write the whole MetaGraphDef to as text, such as graph.pbtxt; predict.py "
        "--meta=graph.pbtxt --ckpt=... reads it.",
        values,
    )
    flag_types.define_path("dot", None, "A file to draw the layers in, for Graphviz.", values)
    flag_types.define_path(
        "png", None, "A picture of the layers; takes Graphviz's program 'dot'.", values
    )
    define_overwrite(values, "Replace files that are there already.")


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Looks at a graph as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from tools.graph_inspection import as_text, inspect_graph

    found = inspect_graph(
        GraphInspection(
            meta=values.meta,
            parts=tuple(values.part),
            node=values.node,
            fetch=tuple(values.fetch),
            signature=values.signature,
            batch_size=values.batch_size,
            depth=values.depth,
            as_text=values.as_text,
            dot=values.dot,
            png=values.png,
            overwrite=values.overwrite,
            max_meta_bytes=values.max_meta_mb << 20,
            time_limit=values.time_limit,
            end_after=end_after,
        )
    )
    show(found, as_text, values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
