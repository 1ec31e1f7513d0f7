"""Shows what the graph of a model holds, part by part; nothing of it is run.

  python -m tools.inspect_graph model1/my-model-200.meta
  python -m tools.inspect_graph model1 --part=cost,safety
  python -m tools.inspect_graph model1 --node=fc2/add
  python -m tools.inspect_graph model1 --as_text=graph.pbtxt
  python -m tools.inspect_graph model1 --dot=layers.dot

The model is a .meta file, a folder for its newest checkpoint, a frozen graph (.pb) or a
SavedModel. Graphviz makes a picture of the last: dot -Tpng -O layers.dot. FLOPs count a
multiplication and the addition after it as two, as TensorFlow's profiler does.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from absl import logging

from cli.fields import COMMAS, Check, flag
from cli.terminal import one_line, postpone_tensorflow
from errors import NotInstalledError, ToolError
from prediction.request import Limits, ModelConfig, meta, signature, tags
from tools.command import Printed, Record, format_bytes, overwrite, run_command, show

if TYPE_CHECKING:
    from tools.graph_layers import Subject

PARTS = ("info", "graph", "collections", "signatures", "functions", "cost", "safety")
_ASKED = ("tags", "max_meta_bytes", "time_limit", "end_after")  # As of any model.
_LINES_OF_ALL, _LINES_OF_ONE = 10, 300  # Of a list, where all parts are shown, or chosen ones.


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
    tags: str | None = tags()
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
    overwrite: bool = overwrite("Replace files that are there already.")

    @property
    def targets(self) -> dict[str, str]:
        """The files to write, by flag."""
        named = {"as_text": self.as_text, "dot": self.dot}
        return {flag: path for flag, path in named.items() if path is not None}


def main(config: GraphInspection) -> None:
    """Looks at the graph that is asked for."""
    postpone_tensorflow()
    show(inspect_graph(config), as_text, config.format)


def inspect_graph(config: GraphInspection) -> Record:
    """Looks at a graph, and writes the files that are asked for; gives what `docs/json.md` has.

    Only the file of the graph is read, never the variables' data.
    """
    from google.protobuf import text_format

    from metagraph.model import read_model
    from prediction.chosen_model import open_graph, with_chosen
    from prediction.output import check_target, write_whole
    from tools.graph_layers import Subject, dot_text, layer_graph
    from tools.graph_parts import node_record

    asked = {name: getattr(config, name) for name in _ASKED}
    meta = with_chosen(ModelConfig(config.meta, **asked), open_graph)
    for name, path in config.targets.items():
        check_target(path, [meta.path], overwrite=config.overwrite, flag=name)
    if len({*map(os.path.realpath, config.targets.values())}) < len(config.targets):
        raise ToolError(f"{path} is named by {' and '.join(f'--{n}' for n in config.targets)}")
    found, files = dict[str, Any](), dict[str, bytes]()
    if config.as_text:  # Before anything looks at the graph, with all of its constants.
        with config.limit.over("writing the graph as text"):
            files[config.as_text] = text_format.MessageToString(
                meta.proto, use_short_repeated_primitives=True
            ).encode()
    if config.node is not None:
        with config.limit.over("looking at the node"):
            found["node"] = node_record(meta, config.node)
    names = config.parts or (() if config.node or config.targets else PARTS)
    if names or config.dot:
        with config.limit.over("reading the graph"):
            model = read_model(meta, config.signature, classifies=False)
        subject = Subject(meta, model, config.fetch, config.batch_size, config.depth)
        found |= _parts(config, subject, names)
        if config.dot:
            with config.limit.over("drawing the graph"):
                files[config.dot] = dot_text(layer_graph(subject)).encode()
    for path, content in files.items():
        write_whole(path, content)
        found.setdefault("written", []).append({"file": path, "bytes": len(content)})
    return found


def _parts(
    config: GraphInspection, subject: "Subject", names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The parts by name; without TensorFlow, of all parts those that the file tells of alone."""
    from tools import graph_parts

    found = {}
    for name in names:
        with config.limit.over(f"looking at the graph for {name}"):
            try:
                found[name] = graph_parts.PARTS[name][0](subject)
            except NotInstalledError as error:
                if config.parts:
                    raise
                logging.warning("without the part %s: %s", name, error)
    return found


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspect_graph` returns as lines for people."""
    from tools import graph_parts

    names = [name for name in PARTS if name in found]
    most = _LINES_OF_ALL if len(names) == len(PARTS) else _LINES_OF_ONE
    lines = [*graph_parts.node_lines(found["node"], most)] if "node" in found else []
    for name in names:
        lines += graph_parts.PARTS[name][1](found[name], most)
    for entry in found.get("written", ()):
        lines.append(f"wrote {entry['file']}, {format_bytes(entry['bytes'])}")
    # A newline in a name of the file could forge a line.
    return "\n".join(map(one_line, lines))


if __name__ == "__main__":
    run_command(main, GraphInspection, __doc__)
