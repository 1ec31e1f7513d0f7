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
from metagraph.model import read_model
from metagraph.opening import find_model, find_variables, open_model, prefix_of
from metagraph.variables import slot_names
from prediction import plan
from prediction.file_inputs import MAX_BYTES
from prediction.plan import read_feeds
from tools.command import Record, format_bytes
from tools.edit import EditConfig
from tools.edit_check import Question, check_same
from tools.edit_files import Contents, Target, Tensor, plan_tensors, read_contents, write_tensors
from tools.edit_graph import edit_graph
from tools.edit_rules import new_names, select

_READING = "reading the graph"
_SHOWN, _FILES = 4, 5


def edit(config: EditConfig) -> Record:
    """Writes the new checkpoint and says what was done, as JSON values.

    Returns:
      `source`, `output`: the prefixes. `files`: the names of what was written. `variables`: in the
      order of their values in the files, of each `name`, `was` (its old name), `dtype`,
      `was_dtype`, `shape`, `bytes` and `in_slices`, whether the old checkpoint had it in slices;
      the new one never does. `dropped`: the names of those that were left out. `graph`: null where
      none goes along, or `file` (the old one), `nodes`, `nodes_before`, `outputs`,
      `largest_difference` and `tolerance`, see `tools.edit_check.Answer`.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user; nothing is
        written.
    """
    return read_newest([config.meta, config.checkpoint], functools.partial(_edit_newest, config))


def _edit_newest(config: EditConfig, hold: Hold) -> Record:
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
        return _edit(config, meta, read_contents(prefix), target)
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
) -> Record:
    """Makes all files aside, has them checked, and moves them into place."""
    slots = slot_names(contents.keys, meta) if config.without_slots else frozenset[str]()
    names = new_names(select(contents.keys, config.only, config.drop, slots), config.renames)
    cast = None if config.cast is None else tf.as_dtype(config.cast)
    tensors = plan_tensors(contents, names, cast)
    make_graph = None if meta is None else _graph_maker(config, meta, contents, tensors)
    with target:
        write_tensors(contents.reader, tensors, target.prefix, config.allow_overflow)
        graph = None if make_graph is None else make_graph(target)
        files = target.commit()
    return {
        "source": contents.reader.prefix,
        "output": target.final,
        "files": files,
        "variables": [_variable(tensor, contents) for tensor in tensors],
        "dropped": [key for key in contents.keys if key not in names],
        "graph": graph,
    }


def _variable(tensor: Tensor, contents: Contents) -> Record:
    return {
        "name": tensor.new,
        "was": tensor.old,
        "dtype": tensor.stored.name,
        "was_dtype": tensor.dtype.name,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes_as(tensor.stored),
        "in_slices": tensor.old in contents.in_slices,
    }


def _graph_maker(
    config: EditConfig, meta: MetaGraphFile, contents: Contents, tensors: Sequence[Tensor]
) -> Callable[[Target], Record]:
    """Edits the graph; what it returns writes and checks it once the tensors are there."""
    with config.limit.over(_READING):
        question = _question(config, meta)
        proto = edit_graph(meta, contents.keys, tensors, question.outputs)

    def make(target: Target) -> Record:
        path = target.write_graph(proto.SerializeToString(deterministic=True))
        new = read_meta_graph(path, config.max_meta_bytes)
        answer = check_same(meta, new, question)
        return {
            "file": meta.path,
            "nodes": len(proto.graph_def.node),
            "nodes_before": len(meta.nodes),
            "outputs": [*question.outputs],
            "largest_difference": answer.largest,
            "tolerance": answer.tolerance,
        }

    return make


def _question(config: EditConfig, meta: MetaGraphFile) -> Question:
    """What the graph predicts, and from what."""
    model = read_model(meta)
    outputs = [*plan.choose_fetches(meta, model, config.fetch)]
    if not config.fetch:
        outputs = [*dict.fromkeys([*outputs, *model.outputs.values()])]
    given = read_feeds(config.feed, MAX_BYTES)
    feeds = {meta.tensor_name(feed.name, model.feed_keys): feed for feed in given}
    return Question(
        outputs=outputs,
        inputs=[*feeds, *plan.unfed(meta, outputs, feeds)],
        feeds=feeds,
        assets=config.asset,
        trust_graph=config.trust_graph,
        time_limit=config.limit,
        cast=config.cast,
        tolerance=config.tolerance,
    )


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
    cast = [v for v in variables if v["dtype"] != v["was_dtype"]]
    if cast:
        names = first_few([f"{v['name']} {v['was_dtype']}" for v in cast], _SHOWN)
        lines.append(f"cast {len(cast)} to {cast[0]['dtype']}: {names}")
    whole = [variable["name"] for variable in variables if variable["in_slices"]]
    if whole:
        lines.append(f"whole, was in slices: {first_few(whole, _SHOWN)}")
    lines += _graph_lines(record["graph"])
    return "\n".join([*lines, f"wrote {record['output']}: {first_few(record['files'], _FILES)}"])


def _graph_lines(graph: Mapping[str, Any] | None) -> list[str]:
    if graph is None:
        return []
    same = "the same bytes as before on a random batch"
    if graph["tolerance"]:
        same = (
            f"as before on a random batch but for {graph['largest_difference']:.2g} of the largest "
            f"number (up to {graph['tolerance']:.2g} is allowed)"
        )
    return [
        f"graph: {graph['nodes']} of {graph['nodes_before']} nodes",
        f"checked: {first_few(graph['outputs'], _SHOWN)}: {same}",
    ]
