"""What an edit has done: JSON values, and the same as lines for people.

`source`, `output`: the prefixes. `files`: the names of what was written. `variables`: in the order
of their values in the files, of each `name`, `was` (its old name), `dtype`, `was_dtype`, `shape`,
`bytes` and `in_slices`, whether the old checkpoint had it in slices; the new one never does.
`dropped`: the names of those that were left out. `graph`: null where none goes along, or `file`
(the old one), `nodes`, `nodes_before`, `renamed` (old node name -> new one), `outputs` (by their
new names), `largest_difference` and `tolerance`, see `tools.editing.check.Answer`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from checkpoints.errors import first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile
from tools.common.output import Record, format_bytes
from tools.editing.check import Answer
from tools.editing.contents import Contents, Tensor
from tools.editing.graph import EditedGraph

_SHOWN = 4
_FILES = 5


def make_record(
    contents: Contents,
    tensors: Sequence[Tensor],
    output: str,
    files: Sequence[str],
    graph: tuple[MetaGraphFile, EditedGraph, Sequence[str], Answer] | None = None,
) -> Record:
    """The record of an edit.

    Args:
      contents: of the old checkpoint.
      tensors: those of the new one.
      output: its prefix.
      files: the names of what was written.
      graph: the old graph, the new one, the outputs that were compared, how far they are apart.
    """
    kept = {tensor.old for tensor in tensors}
    return {
        "source": contents.reader.prefix,
        "output": output,
        "files": list(files),
        "variables": [_variable(tensor, contents) for tensor in tensors],
        "dropped": [key for key in contents.keys if key not in kept],
        "graph": None if graph is None else _graph(*graph),
    }


def _variable(tensor: Tensor, contents: Contents) -> Record:
    return {
        "name": tensor.new,
        "was": tensor.old,
        "dtype": tensor.stored.name,
        "was_dtype": tensor.dtype.name,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes,
        "in_slices": tensor.old in contents.in_slices,
    }


def _graph(
    meta: MetaGraphFile, graph: EditedGraph, outputs: Sequence[str], answer: Answer
) -> Record:
    return {
        "file": meta.path,
        "nodes": len(graph.proto.graph_def.node),
        "nodes_before": graph.nodes_before,
        "renamed": {old: new for old, new in graph.names.nodes.items() if old != new},
        "outputs": [graph.names.of_node(name) for name in outputs],
        "largest_difference": answer.largest,
        "tolerance": answer.tolerance,
    }


def as_text(record: Record) -> str:
    """The record for people, a line for each thing that was done."""
    variables, dropped = record["variables"], record["dropped"]
    size = format_bytes(sum(variable["bytes"] for variable in variables))
    lines = [
        f"kept {len(variables)} of {len(variables) + len(dropped)} variables ({size}): "
        + first_few([variable["was"] for variable in variables], _SHOWN)
    ]
    if dropped:
        lines.append(f"dropped {len(dropped)}: {first_few(dropped, _SHOWN)}")
    renamed = [f"{v['was']} -> {v['name']}" for v in variables if v["was"] != v["name"]]
    if renamed:
        lines.append(f"renamed {len(renamed)}: {first_few(renamed, _SHOWN)}")
    cast = [f"{v['name']} {v['was_dtype']}" for v in variables if v["dtype"] != v["was_dtype"]]
    if cast:
        dtype = next(v["dtype"] for v in variables if v["dtype"] != v["was_dtype"])
        lines.append(f"cast {len(cast)} to {dtype}: {first_few(cast, _SHOWN)}")
    whole = [variable["name"] for variable in variables if variable["in_slices"]]
    if whole:
        lines.append(f"whole, was in slices: {first_few(whole, _SHOWN)}")
    lines += _graph_lines(record["graph"])
    return "\n".join([*lines, f"wrote {record['output']}: {first_few(record['files'], _FILES)}"])


def _graph_lines(graph: Mapping[str, Any] | None) -> list[str]:
    if graph is None:
        return []
    renamed = f", {len(graph['renamed'])} renamed" if graph["renamed"] else ""
    same = "the same bytes as before on a random batch"
    if graph["tolerance"]:
        same = (
            f"as before on a random batch but for {graph['largest_difference']:.2g} of the largest "
            f"number (up to {graph['tolerance']:.2g} is allowed)"
        )
    return [
        f"graph: {graph['nodes']} of {graph['nodes_before']} nodes{renamed}",
        f"checked: {first_few(graph['outputs'], _SHOWN)}: {same}",
    ]
