"""One edit from start to end: what tools.edit does once its flags are read.

What has been done is told as JSON values, and as lines for people.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from checkpoints.folder import Hold, read_newest, say_if_gone
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import Model, read_model
from metagraph.opening import find_model, find_variables, open_model, prefix_of
from metagraph.slots import slot_names
from prediction import plan
from prediction.plan import Feed, read_feeds
from prediction.row_inputs import MAX_BYTES
from tools.command import Record, format_bytes
from tools.edit import EditConfig
from tools.edit_files import Contents, Target, Tensor, plan_tensors, read_contents, write_tensors
from tools.edit_graph import Answer, EditedGraph, Question, check_same, edit_graph
from tools.edit_rules import NewNames, select

# What an edit has done: JSON values, and the same as lines for people.
#
# `source`, `output`: the prefixes. `files`: the names of what was written. `variables`: in the
# order of their values in the files, of each `name`, `was` (its old name), `dtype`, `was_dtype`,
# `shape`, `bytes` and `in_slices`, whether the old checkpoint had it in slices; the new one never
# does. `dropped`: the names of those that were left out. `graph`: null where none goes along, or
# `file` (the old one), `nodes`, `nodes_before`, `renamed` (old node name -> new one), `outputs` (by
# their new names), `largest_difference` and `tolerance`, see `tools.edit_graph.Answer`.

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


# One edit from start to end: what tools.edit does once its flags are read.

_READING = "reading the graph"


def edit(config: EditConfig) -> Mapping[str, Any]:
    """Writes the new checkpoint and returns what `tools.editing` describes.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user; nothing is
        written.
    """
    return read_newest([config.meta, config.checkpoint], functools.partial(_edit_newest, config))


def _edit_newest(config: EditConfig, hold: Hold) -> Mapping[str, Any]:
    prefix = None if config.checkpoint is None else find_variables(config.checkpoint)
    file = None if config.meta is None else find_model(config.meta, warn=prefix is None)
    for path in (prefix, file):
        if path is not None:
            hold(prefix_of(path))
    meta = None if file is None else _open_graph(config, file, prefix)
    prefix = meta.prefix if meta is not None else prefix or ""
    sources = [prefix] if meta is None else [prefix, meta.path.removesuffix(META_SUFFIX)]
    target = Target(config.output, sources, config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        contents = read_contents(prefix)
        return _edit(config, meta, contents, target)
    except CheckpointError as error:
        flag = "--meta" if config.checkpoint is None else "--ckpt"
        raise say_if_gone(error, prefix, flag) from error


def _open_graph(config: EditConfig, path: str, checkpoint: str | None) -> MetaGraphFile:
    """The graph that goes along, and where its variables are."""
    with config.limit.over(_READING):
        meta = open_model(path, config.max_meta_bytes, checkpoint)
    if not meta.path.endswith(META_SUFFIX):
        raise ToolError(
            f"{meta.path} is no .meta file, the one kind of graph that can be edited; --ckpt alone "
            "edits the variables of a SavedModel"
        )
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def _edit(
    config: EditConfig, meta: MetaGraphFile | None, contents: Contents, target: Target
) -> Mapping[str, Any]:
    """Everything but the looking for the files."""
    slots = slot_names(contents.keys, meta) if config.without_slots else frozenset[str]()
    kept = select(contents.keys, config.only, config.drop, slots)
    new_names = NewNames(config.renames)
    keys = new_names.of(kept)
    cast = None if config.cast is None else tf.as_dtype(config.cast)
    tensors = plan_tensors(contents, keys, cast)
    if meta is None:
        new_names.check_used()
        files = _write(config, contents, tensors, target)
        return make_record(contents, tensors, target.final, files)
    with config.limit.over(_READING):
        question = _question(config, meta, read_model(meta))
        graph = edit_graph(meta, contents.keys, tensors, new_names, question.outputs)
    new_names.check_used()
    answer: list[Answer] = []

    def check(path: str) -> None:
        new = read_meta_graph(path, config.max_meta_bytes)
        answer.append(check_same(meta, new, graph.names, question, config.cast))

    files = _write(config, contents, tensors, target, graph, check)
    return make_record(
        contents, tensors, target.final, files, (meta, graph, question.outputs, answer[0])
    )


def _write(
    config: EditConfig,
    contents: Contents,
    tensors: Sequence[Tensor],
    target: Target,
    graph: EditedGraph | None = None,
    check: Callable[[str], None] | None = None,
) -> list[str]:
    """Writes all files aside, has them checked and moves them into place; returns their names."""
    with target:
        write_tensors(contents.reader, tensors, target.prefix, config.allow_overflow)
        if graph is not None and check is not None:
            check(target.write_graph(graph.proto.SerializeToString(deterministic=True)))
        return target.commit()


def _question(config: EditConfig, meta: MetaGraphFile, model: Model) -> Question:
    """What the graph predicts, and from what."""
    outputs = [*plan.choose_fetches(meta, model, config.fetch)]
    if not config.fetch:
        outputs = [*dict.fromkeys([*outputs, *model.outputs.values()])]
    feeds: dict[str, Feed] = {}
    for feed in read_feeds(config.feed, MAX_BYTES):
        feeds[meta.tensor_name(feed.name, model.feed_keys)] = feed
    return Question(
        outputs=outputs,
        inputs=[*feeds, *plan.unfed(meta, outputs, feeds)],
        feeds=feeds,
        assets=config.asset,
        trust_graph=config.trust_graph,
        time_limit=config.limit,
        tolerance=config.tolerance,
    )
