"""The variables of a checkpoint as a file that other frameworks read: safetensors, or an .npz.

The file is kept only if its format's own reader gives back the very bytes of the checkpoint.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from errors import CheckpointError, ToolError, first_few, reason
from prediction.request import AVERAGED
from tools.command import Record, format_bytes, table
from tools.export import SAFETENSORS, ExportConfig
from tools.selection import new_names, select

if TYPE_CHECKING:
    from checkpoints.lock import Hold
    from checkpoints.reader import CheckpointReader
    from tools.weight_layouts import Layout

Array = np.ndarray[Any, Any]
_SHOWN = 4
_METADATA = "__metadata__"  # Its name in an .npz, as in a safetensors file.
# Each dtype as safetensors has it: https://github.com/huggingface/safetensors#format
_CODES = {
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "bool": "BOOL",
    "complex64": "C64",
}
_OF_NUMPY = _CODES.keys() - {"bfloat16"} | {"complex128"}


class Exported(NamedTuple):
    """A variable on its way: what it is called there and here, and what becomes of its axes."""

    name: str
    was: str
    key: str  # Of its value, which may be that of its moving average.
    shape: tuple[int, ...]
    dtype: str
    layout: "Layout | None"

    def value(self, reader: "CheckpointReader") -> Array:
        """The value as it is written."""
        value = reader.read(self.key)
        return value if self.layout is None else self.layout.apply(value)


def export_weights(config: ExportConfig) -> Record:
    """Writes the variables and says what was done, as JSON values.

    Returns:
      `format`, `path`, `bytes`; `checkpoint`, the prefix that was read; `weights`, as --weights has
      it; `variables`, of each `name`, `was`, `key` (of its value), `dtype`, `shape` (as it is
      written) and `layout` (null without --layout); `dropped`, the names that were left out.
    """
    from checkpoints.folder import best_checkpoint
    from checkpoints.lock import read_newest
    from metagraph.opening import find_variables
    from prediction.chosen_model import BEST

    def on_newest(hold: "Hold") -> Record:
        is_best = config.checkpoint == BEST
        found = best_checkpoint if is_best else find_variables
        prefix = found(config.meta if is_best else config.checkpoint or config.meta)
        hold(prefix)
        return _export(config, prefix)

    return read_newest([config.meta, config.checkpoint], on_newest)


def _export(config: ExportConfig, prefix: str) -> Record:
    from checkpoints.folder import explain_if_gone
    from checkpoints.manifest import verify_checkpoint
    from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX
    from checkpoints.reader import CheckpointReader
    from prediction.output import check_target, write_whole

    check_target(config.output, [prefix + INDEX_SUFFIX], overwrite=config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        reader = CheckpointReader(prefix)
        reader.check_sizes(reader.shapes)
        variables, dropped = _chosen(config, reader)
        values = {one.name: one.value(reader) for one in variables}
        metadata = _metadata(config, prefix, variables)
        write = _as_safetensors if config.to == SAFETENSORS else _as_npz
        content, read_back = write(values, metadata)
        for one in variables:
            _check_same(one, read_back(one.name), reader)
    except CheckpointError as error:
        raise explain_if_gone(error, prefix, "--ckpt") from error
    write_whole(config.output, content)
    return {
        "format": config.to,
        "path": config.output,
        "bytes": len(content),
        "checkpoint": prefix,
        "weights": config.weights,
        "variables": [
            {
                "name": one.name,
                "was": one.was,
                "key": one.key,
                "dtype": one.dtype,
                "shape": list(values[one.name].shape),
                "layout": one.layout and one.layout.name,
            }
            for one in variables
        ],
        "dropped": dropped,
    }


def _chosen(
    config: ExportConfig, reader: "CheckpointReader"
) -> tuple[list[Exported], Sequence[str]]:
    """The variables to write, and the names of those that are left out."""
    from metagraph.variables import averages, slot_names

    keys, specs = {key: key for key in sorted(reader.shapes)}, reader.specs
    slots = slot_names(keys) if config.without_slots else frozenset[str]()
    if config.weights == AVERAGED:
        shadows = averages(keys, reader.prefix)
        keys = {name: key for name, key in keys.items() if key not in shadows.values()} | shadows
    kept = select([*keys], slots, config.only)
    known = _CODES.keys() if config.to == SAFETENSORS else _OF_NUMPY
    for name in kept:
        if specs[keys[name]].dtype not in known:
            raise ToolError(
                f"{name} is {specs[keys[name]]}, which a file of --to={config.to} does not hold: "
                "leave it out with --only"
            )
    shapes = {name: specs[key].shape for name, key in keys.items()}
    layouts = _layouts(config, reader.prefix, shapes, kept)
    variables = [
        Exported(new, name, keys[name], *specs[keys[name]], layouts.get(name))
        for name, new in new_names(kept, config.rename).items()
    ]
    return variables, [name for name in keys if name not in kept]


def _layouts(
    config: ExportConfig, prefix: str, shapes: Mapping[str, Sequence[int]], kept: Sequence[str]
) -> "Mapping[str, Layout]":
    """What becomes of each variable that is kept; nothing without --layout."""
    if config.layout is None:
        return {}
    from metagraph.opening import open_model
    from prediction.chosen_model import READING
    from tools.weight_layouts import torch_layouts

    with config.limit.over(READING):
        meta = open_model(config.meta, config.max_meta_bytes, prefix)
        return torch_layouts(meta, shapes, kept)


def _metadata(config: ExportConfig, prefix: str, variables: Sequence[Exported]) -> dict[str, str]:
    """What the file says of itself: texts, as safetensors has it."""
    told = {"checkpoint": os.path.basename(prefix), "weights": config.weights}
    if config.layout is not None:
        layouts = {one.name: one.layout.name for one in variables if one.layout}
        # Some of PyTorch's libraries take a file only where it says that it is for them.
        told |= {"format": "pt", "layout": json.dumps(layouts)}
    return told


# A file, and what its format's own reader gives for a name in it.
_Written = tuple[bytes, Callable[[str], Array]]


def _as_safetensors(values: Mapping[str, Array], metadata: Mapping[str, str]) -> _Written:
    from safetensors import SafetensorError, deserialize
    from safetensors.numpy import save

    try:
        content = save(dict(values), dict(metadata))
        found = dict(deserialize(content))
    except SafetensorError as error:
        raise ToolError(f"safetensors refuses the variables: {reason(error)}") from error

    def read(name: str) -> Array:
        dtype, raw = values[name].dtype, found[name]
        is_same = raw["dtype"] == _CODES[dtype.name]
        return np.ndarray(raw["shape"], dtype if is_same else np.void, raw["data"])

    return content, read


def _as_npz(values: Mapping[str, Array], metadata: Mapping[str, str]) -> _Written:
    """Only with --layout it has an array of metadata, as JSON, beside the variables."""
    file, told = io.BytesIO(), {}
    if "layout" in metadata:
        told[_METADATA] = np.array(json.dumps(metadata))
    with zipfile.ZipFile(file, "w") as archive:  # np.savez takes no variable that is called `file`.
        for name, value in {**values, **told}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, value, allow_pickle=False)
    file.seek(0)
    return file.getvalue(), np.load(file, allow_pickle=False).__getitem__


def _check_same(one: Exported, found: Array, reader: "CheckpointReader") -> None:
    """ToolError unless what was read back is the checkpoint's own, read anew, to the byte."""
    original = reader.read(one.key)
    if one.layout is not None:
        found = one.layout.undo(found, original.shape)
    is_same = (found.dtype, found.shape) == (original.dtype, original.shape)
    if not is_same or found.tobytes() != original.tobytes():
        raise ToolError(f"{one.name} is read back as another than it was; nothing is kept")


def as_text(record: Record) -> str:
    """Lines for people: a row a variable."""
    rows = [
        (
            one["name"],
            f"{one['dtype']} {one['shape']}",
            one["layout"] or "",
            "" if one["key"] == one["name"] else f"from {one['key']}",
        )
        for one in record["variables"]
    ]
    written, dropped = format_bytes(record["bytes"]), record["dropped"]
    told = f"{written}, {len(rows)} variables of {record['checkpoint']}"
    lines = [
        f"{record['path']}  {record['format']}, {told}",
        *table(rows, indent=2),
    ]
    if dropped:
        lines.append(f"left out {len(dropped)}: {first_few(dropped, _SHOWN)}")
    return "\n".join([*lines, "read back and compared: the same bytes"])
