"""One edit from start to end: what tools.edit does once its flags are read.

A graph that goes along is kept only if it predicts what the original does.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from checkpoints.file_io import write_file
from checkpoints.folder import explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile, node_of, read_meta_graph
from metagraph.model import read_model
from metagraph.opening import find_model, find_variables, open_model, prefix_of
from metagraph.session import InferenceGraph, load_inference_graph, random_outputs
from metagraph.variables import graph_variables, slot_names, unavailable
from prediction import plan
from prediction.file_inputs import MAX_BYTES
from prediction.plan import feed_value
from tools.command import Record, format_bytes
from tools.differences import compare
from tools.edit import EditConfig
from tools.edit_files import (
    Tensor,
    check_prefix,
    commit,
    keys_in_order,
    plan_tensors,
    write_tensors,
)
from tools.edit_graph import edit_graph
from tools.freezing import try_batches
from tools.selection import new_names, select

_READING = "reading the graph"
_SHOWN, _FILES = 4, 5
_FEED = "--feed gives inputs of your own in place of random ones"
# 16 times the distance from 1 to the next number: how far the numbers of an output may be apart by
# default after a cast, as a part of the largest of them.
_TOLERANCES = {"bfloat16": 2**-3, "float16": 2**-6, "float32": 2**-19, "float64": 2**-48}


def edit(config: EditConfig) -> Record:
    """Writes the new checkpoint and says what was done, as JSON values.

    Returns:
      `source`, `output`: the prefixes. `files`: the names of what was written. `variables`: in the
      order of their values in the files, of each `name`, `was` (its old name), `dtype`,
      `was_dtype`, `shape` and `bytes`. `dropped`: the names of those that were left out. `graph`:
      null where none goes along, or `file` (the old one), `nodes`, `nodes_before`, `outputs`,
      `largest_difference` (as a part of the largest number of an output) and `tolerance`, the
      largest that is allowed (0 where the bytes have to be equal).

    Where it fails, nothing is written.
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
    check_prefix(config.output, sources, config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        return _edit(config, meta, CheckpointReader(prefix))
    except CheckpointError as error:
        flag = "--meta" if config.checkpoint is None else "--ckpt"
        raise explain_if_gone(error, prefix, flag) from error


def _open_graph(config: EditConfig, path: str, checkpoint: str | None) -> MetaGraphFile:
    with config.limit.over(_READING):
        meta = open_model(path, config.max_meta_bytes, checkpoint)
    if not meta.path.endswith(META_SUFFIX):
        raise ToolError(
            f"{meta.path} is no .meta file, the one kind of graph that can be edited; --ckpt alone "
            "edits the variables of a SavedModel"
        )
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def _edit(config: EditConfig, meta: MetaGraphFile | None, reader: CheckpointReader) -> Record:
    """Makes all files aside, has them checked, and moves them into place."""
    keys = keys_in_order(reader)
    slots = slot_names(keys, meta) if config.without_slots else frozenset[str]()
    kept = select(keys, slots, config.only, config.drop)
    names = new_names(kept, [*config.rename, *config.rename_regex])
    tensors = plan_tensors(reader, names, None if config.cast is None else tf.as_dtype(config.cast))
    make_graph = None if meta is None else _graph_maker(config, meta, keys, tensors)

    def make(prefix: str) -> Record | None:
        write_tensors(reader, tensors, prefix)
        return None if make_graph is None else make_graph(prefix)

    graph, files = commit(config.output, make)
    return {
        "source": reader.prefix,
        "output": config.output,
        "files": files,
        "variables": [
            {
                "name": tensor.new,
                "was": tensor.old,
                "dtype": tensor.stored.name,
                "was_dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "bytes": tensor.size,
            }
            for tensor in tensors
        ],
        "dropped": [key for key in keys if key not in names],
        "graph": graph,
    }


def _graph_maker(
    config: EditConfig, meta: MetaGraphFile, keys: Sequence[str], tensors: Sequence[Tensor]
) -> Callable[[str], Record]:
    """Edits the graph; what it returns writes and checks it once the tensors are there."""
    with config.limit.over(_READING):
        model = read_model(meta)
        known = () if config.fetch else model.outputs.values()
        outputs = [*dict.fromkeys([*plan.choose_fetches(meta, model, config.fetch), *known])]
        proto = edit_graph(meta, keys, tensors, outputs)

    def make(prefix: str) -> Record:
        write_file(prefix + META_SUFFIX, proto.SerializeToString(deterministic=True))
        new = read_meta_graph(prefix + META_SUFFIX, config.max_meta_bytes)
        return {
            "file": meta.path,
            "nodes": len(new.nodes),
            "nodes_before": len(meta.nodes),
            "outputs": outputs,
            "largest_difference": check_same(meta, new, outputs, config),
            "tolerance": _tolerance(config),
        }

    return make


def _tolerance(config: EditConfig) -> float:
    return 0.0 if config.cast is None else config.tolerance or _TOLERANCES[config.cast]


def _loader(config: EditConfig) -> Callable[..., InferenceGraph]:
    return functools.partial(
        load_inference_graph,
        trust_graph=config.trust_graph,
        assets=config.asset,
        time_limit=config.limit,
    )


def check_same(
    old: MetaGraphFile, new: MetaGraphFile, outputs: Sequence[str], config: EditConfig
) -> float:
    """Runs the original and the edited one, as it was written, on the same values.

    Without a cast, each output has to have the very same bytes. With one, its numbers may be apart
    by a part of the largest of them; whole numbers, such as classes, may be any, as what was nearly
    the largest may become the largest.

    Returns how far they are apart at most, as such a part. Raises ToolError where they differ, or
    one cannot be run.
    """
    lost = unavailable(new, graph_variables(new))
    if len(lost) > len(unavailable(old, graph_variables(old))):
        raise ToolError(f"nothing is written, as the result could not be restored: {lost[0]}")
    values, expected = _ask_original(old, outputs, config)
    # An input that no output needs may be gone.
    fed = {name: value for name, value in values.items() if node_of(name) in new.nodes}
    try:
        with _loader(config)(new, outputs, [*fed]) as graph:
            found = graph.run(*fed.values())
    except CheckpointError as error:
        raise ToolError(f"nothing is written, as the result does not run: {error}") from error
    tolerance, largest = _tolerance(config), 0.0
    for name, one, other in zip(outputs, expected, found, strict=True):
        apart = _apart(one, other, is_cast=config.cast is not None)
        if not apart <= tolerance:
            hint = " (--tolerance allows another part)" if tolerance else ""
            raise ToolError(
                f"nothing is written, as {name} would be another: it differs by {apart:.3g} of its "
                f"largest number, more than {tolerance:.3g}{hint}"
            )
        largest = max(largest, apart)
    return largest


def _ask_original(
    meta: MetaGraphFile, outputs: Sequence[str], config: EditConfig
) -> tuple[dict[str, Array], list[Array]]:
    """The values of the inputs, given or made up, and what it computes, each time the same."""
    feeds = plan.feeds_by_tensor(meta, read_model(meta), config.feed, MAX_BYTES)
    names = [*feeds, *plan.unfed(meta, outputs, feeds)]
    with _loader(config)(meta, outputs, names) as graph:
        values = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
        unfed = graph.feeds[len(values) :]
        try:
            made_up, expected = try_batches(unfed, lambda v: graph.run(*values.values(), *v))
        except CheckpointError as error:
            raise ToolError(
                f"the original cannot be run, to compare with: {error}; {_FEED}"
            ) from error
        values |= {info.name: value for info, value in zip(unfed, made_up, strict=True)}
        random = random_outputs(graph, [*values.values()], expected)
    if random:
        raise ToolError(
            f"{random[0]} of {meta.path} is another at each run on the same input, so that nothing "
            f"can be compared: {_FEED}, such as for what switches dropout off"
        )
    return values, expected


def _apart(one: Array, other: Array, *, is_cast: bool) -> float:
    """The largest difference by the largest number; infinity where they may not differ at all."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    found = compare(one, other)
    if found.equal_bytes or (is_cast and one.dtype.kind in "biu"):
        return 0.0
    if not is_cast or found.largest is None:
        return float("inf")
    finite = np.abs(one[np.isfinite(one)])
    largest = float(finite.max(initial=0)) or float("nan")
    return float(found.largest) / largest if found.largest else 0.0


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
    if graph := record["graph"]:
        same = "the same bytes as before on a random batch"
        if graph["tolerance"]:
            same = (
                f"as before on a random batch but for {graph['largest_difference']:.2g} of the "
                f"largest number (up to {graph['tolerance']:.2g} is allowed)"
            )
        lines.append(f"graph: {graph['nodes']} of {graph['nodes_before']} nodes")
        lines.append(f"checked: {first_few(graph['outputs'], _SHOWN)}: {same}")
    return "\n".join([*lines, f"wrote {record['output']}: {first_few(record['files'], _FILES)}"])
