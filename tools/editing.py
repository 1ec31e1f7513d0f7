"""One edit from start to end: what tools.edit does once its flags are read.

A graph that goes along is kept only if it predicts what the original does.
"""

import functools

from checkpoints.dtypes import DType
from checkpoints.folder import explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile
from metagraph.opening import find_model, find_variables, open_model, prefix_of
from metagraph.variables import slot_names
from tools.command import Record, format_bytes
from tools.edit import EditConfig
from tools.edit_files import (
    check_prefix,
    commit,
    keys_in_order,
    plan_tensors,
    write_tensors,
)
from tools.selection import new_names, select

_READING = "reading the graph"
_SHOWN, _FILES = 4, 5


def edit(config: EditConfig) -> Record:
    """Writes the new checkpoint and says what was done, as `docs/json.md` has it.

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
    tensors = plan_tensors(reader, names, None if config.cast is None else DType(config.cast))
    make_graph = None
    if meta is not None:
        # Imported where it is wanted: it runs graphs, and variables alone take no TensorFlow.
        from tools.edit_check import graph_maker

        make_graph = graph_maker(config, meta, keys, tensors)

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
