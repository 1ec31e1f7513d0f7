"""The variables of a checkpoint as a file that other frameworks read: safetensors, or an .npz.

The file is kept only if its format's own reader gives back the very bytes of the checkpoint. How
the weights lie in PyTorch is told by the operation that takes them, or it is refused.
"""

import io
import json
import math
import os
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.folder import best_checkpoint, explain_if_gone, find_variables
from checkpoints.layout import AVERAGE, DATA_SUFFIX, INDEX_SUFFIX, verify_checkpoint
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, ToolError, first_few, reason
from metagraph.graph import View, attribute_of, called, data_inputs, sub_graph, views
from metagraph.meta import MetaGraphFile
from metagraph.model import find_candidates, read_model
from metagraph.opening import open_model
from metagraph.variables import VARIABLE_OPS, averages, checkpoint_keys, slot_names
from prediction.chosen_model import BEST, READING
from prediction.output import check_target, write_whole
from prediction.request import AVERAGED
from tools.command import Record, format_bytes, new_names, select, table
from tools.export import SAFETENSORS, ExportConfig

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


class AxisOrder(NamedTuple):
    """What becomes of an array: its axes in another order, and perhaps two of them as one."""

    name: str | None  # None where nothing is asked of it.
    axes: tuple[int, ...] = ()  # Empty where it stays as it is.
    is_depthwise: bool = False  # The channels that it takes and gives become one, with a 1 after.

    def apply(self, value: Array) -> Array:
        """The array as it is to be written, in one piece."""
        if self.axes:
            value = value.transpose(self.axes)
        if self.is_depthwise:
            value = value.reshape(math.prod(value.shape[:2]), 1, *value.shape[2:])
        return np.asarray(value, order="C")

    def undo(self, value: Array, shape: Sequence[int]) -> Array:
        """The array of this shape that `apply` has made `value` of."""
        if not self.axes:
            return value
        return value.reshape([shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))


class Exported(NamedTuple):
    """A variable on its way: what it is called there and here, and what becomes of its axes."""

    name: str
    was: str
    key: str  # Of its value, which may be that of its moving average.
    layout: AxisOrder


def export_weights(config: ExportConfig) -> Record:
    """Writes the variables and says what was done, as `docs/json.md` has it."""

    def on_newest(hold: Hold) -> Record:
        named, *others = config.checkpoint or [config.meta]
        if others:
            raise ToolError(
                f"--ckpt={others[0]}: --to={config.to} writes the values of one checkpoint"
            )
        prefix = best_checkpoint(config.meta) if named == BEST else find_variables(named)
        hold(prefix)
        return _export(config, prefix)

    return read_newest([config.meta, *config.checkpoint], on_newest)


def _export(config: ExportConfig, prefix: str) -> Record:
    check_target(config.output, [prefix + INDEX_SUFFIX], overwrite=config.overwrite)
    try:
        verify_checkpoint(prefix, (DATA_SUFFIX, INDEX_SUFFIX))
        reader = CheckpointReader(prefix)
        reader.check_sizes(reader.shapes)
        variables, dropped = _chosen(config, reader)
        values = {one.name: one.layout.apply(reader.read(one.key)) for one in variables}
        metadata = _metadata(config, prefix, variables)
        write = _as_safetensors if config.to == SAFETENSORS else _as_npz
        content, read_back = write(values, metadata)
        for one in variables:  # The checkpoint's own value is read anew.
            _check_same(one, read_back[one.name], reader.read(one.key))
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
            {"name": name, "was": was, "key": key, "dtype": values[name].dtype.name}
            | {"shape": list(values[name].shape), "layout": layout.name}
            for name, was, key, layout in variables
        ],
        "dropped": dropped,
    }


def _chosen(config: ExportConfig, reader: CheckpointReader) -> tuple[list[Exported], Sequence[str]]:
    """The variables to write, and the names of those that are left out."""
    keys = {key: key for key in sorted(reader.shapes)}
    slots = slot_names(keys) if config.without_slots else frozenset[str]()
    if config.weights == AVERAGED:
        shadows = averages(keys, reader.prefix)
        keys = {name: key for name, key in keys.items() if key not in shadows.values()} | shadows
    kept = select([*keys], slots, config.only)
    known = _CODES.keys() if config.to == SAFETENSORS else _OF_NUMPY
    for name in kept:
        spec = reader.specs[keys[name]]
        if spec.dtype not in known:
            raise ToolError(
                f"{name} is {spec}, which a file of --to={config.to} does not hold: leave it out "
                "with --only"
            )
    layouts = dict.fromkeys(kept, AxisOrder(None))
    if config.layout is not None:
        shapes = {name: reader.specs[key].shape for name, key in keys.items()}
        with config.limit.over(READING):
            source = [reader.prefix]
            meta = open_model(config.meta, config.max_meta_bytes, source, config.tags)
            layouts = torch_layouts(meta, shapes, kept)
    renamed = new_names(kept, config.rename).items()
    variables = [Exported(new, name, keys[name], layouts[name]) for name, new in renamed]
    return variables, [name for name in keys if name not in kept]


def _metadata(config: ExportConfig, prefix: str, variables: Sequence[Exported]) -> dict[str, str]:
    """What the file says of itself: texts, as safetensors has it."""
    told = {"checkpoint": os.path.basename(prefix), "weights": config.weights}
    if config.layout is not None:
        layouts = {one.name: one.layout.name for one in variables}
        # Some of PyTorch's libraries take a file only where it says that it is for them.
        told |= {"format": "pt", "layout": json.dumps(layouts)}
    return told


# A file, and what its format's own reader gives of it by name.
_Written = tuple[bytes, Mapping[str, Array]]


def _as_safetensors(values: Mapping[str, Array], metadata: Mapping[str, str]) -> _Written:
    from safetensors import SafetensorError, deserialize
    from safetensors.numpy import save

    read = dict[str, Array]()
    try:
        content = save(dict(values), dict(metadata))
        for name, raw in deserialize(content):
            dtype = values[name].dtype
            is_same = raw["dtype"] == _CODES[dtype.name]
            read[name] = np.ndarray(raw["shape"], dtype if is_same else np.void, raw["data"])
    except SafetensorError as error:
        raise ToolError(f"safetensors refuses the variables: {reason(error)}") from error
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
    return file.getvalue(), np.load(file, allow_pickle=False)


def _check_same(one: Exported, found: Array, original: Array) -> None:
    """ToolError unless what was read back is the checkpoint's own to the byte."""
    found = one.layout.undo(found, original.shape)
    is_same = (found.dtype, found.shape) == (original.dtype, original.shape)
    if not is_same or found.tobytes() != original.tobytes():
        raise ToolError(f"{one.name} is read back as another than it was; nothing is kept")


def as_text(record: Record) -> str:
    """Lines for people: a row a variable."""
    rows = []
    for one in record["variables"]:
        origin = "" if one["key"] == one["name"] else f"from {one['key']}"
        rows.append((one["name"], f"{one['dtype']} {one['shape']}", one["layout"] or "", origin))
    written, dropped = format_bytes(record["bytes"]), record["dropped"]
    told = f"{written}, {len(rows)} variables of {record['checkpoint']}"
    lines = [f"{record['path']}  {record['format']}, {told}", *table(rows, indent=2)]
    if dropped:
        lines.append(f"left out {len(dropped)}: {first_few(dropped, _SHOWN)}")
    return "\n".join([*lines, "read back and compared: the same bytes"])


# How weights lie in PyTorch. A dimension of a filter is H, W (D, of three; K, of one): its place;
# I: the channels it takes; O: those it gives; M: those that a depthwise one gives for each.

AS_IT_IS, UNKNOWN = AxisOrder("as it is"), AxisOrder("unknown")
_SWAPPED = AxisOrder("IO -> OI", (1, 0))
# By operation and rank. A filter of rank 3 gets a first dimension, as `tf.nn.conv1d` has it.
_FILTERS = {
    ("Conv2D", 3): AxisOrder("KIO -> OIK", (2, 1, 0)),
    ("Conv2D", 4): AxisOrder("HWIO -> OIHW", (3, 2, 0, 1)),
    ("Conv3D", 5): AxisOrder("DHWIO -> OIDHW", (4, 3, 0, 1, 2)),
    ("DepthwiseConv2dNative", 4): AxisOrder("HWIM -> (IM)1HW", (2, 3, 0, 1), is_depthwise=True),
    # A transposed convolution; the first of its inputs is a shape.
    ("Conv2DBackpropInput", 3): AxisOrder("KOI -> IOK", (2, 1, 0)),
    ("Conv2DBackpropInput", 4): AxisOrder("HWOI -> IOHW", (3, 2, 0, 1)),
    ("Conv3DBackpropInputV2", 5): AxisOrder("DHWOI -> IODHW", (4, 3, 0, 1, 2)),
}
_FLIPS = {  # The attributes that say of the first and second input that it is transposed.
    "MatMul": ("transpose_a", "transpose_b"),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), ("adj_x", "adj_y")),
}
_LOOKED_UP = frozenset({"Gather", "GatherV2", "ResourceGather"})
_NO_USE = frozenset({"IsVariableInitialized", "L2Loss", "Shape", "VarIsInitializedOp"})
_SEEN_THROUGH = frozenset(
    {"Cast", "Enter", "ExpandDims", "Identity", "ReadVariableOp", "RefEnter", "RefIdentity"}
)
_MOST_STEPS = 64  # From an operation to the variable: a hostile chain may be endless.
_MOST_NAMED = 5


def torch_layouts(
    meta: MetaGraphFile, shapes: Mapping[str, Sequence[int]], names: Sequence[str]
) -> dict[str, AxisOrder]:
    """What becomes of some of the variables of a checkpoint, all of which `shapes` has.

    Vectors and single numbers stay as they are. Of the others, what the prediction takes them for
    tells. Raises ToolError where that does not, or tells two things.
    """
    uses = _uses(meta, shapes)
    found, unknown = dict[str, AxisOrder](), list[str]()
    for name in names:
        own = uses.get(name) or uses.get(name.removesuffix(AVERAGE), set())
        told = {layout for _, layout in own} if len(shapes[name]) > 1 else {AS_IT_IS}
        if len(told) == 1 and UNKNOWN not in told:
            found[name] = told.pop()
            continue
        ops = ", ".join(sorted({op for op, _ in own})) or "no operation of the prediction"
        unknown.append(f"{name} {list(shapes[name])} (taken by {ops})")
    if unknown:
        raise ToolError(
            "--layout=torch: the graph does not tell how these lie: "
            f"{first_few(unknown, _MOST_NAMED)}; leave them out with --only, or leave out --layout"
        )
    return found


def _uses(
    meta: MetaGraphFile, shapes: Mapping[str, Sequence[int]]
) -> Mapping[str, set[tuple[str, AxisOrder]]]:
    """The operations of the prediction that take each variable, with what they tell of it."""
    model = read_model(meta)
    outputs = dict.fromkeys([*model.predict, *model.outputs.values()])
    graph = sub_graph(meta, [*outputs] or find_candidates(meta).outputs).graph_def
    needed = MetaGraphFile(meta.path, meta.prefix, MetaGraphDef(graph_def=graph))
    library = {function.signature.name: function for function in graph.library.function}
    names = [node.name for node in graph.node if node.op in VARIABLE_OPS]
    places = checkpoint_keys(meta, names, {key: key for key in shapes})
    keys = {name: place.key for name, place in places.items()}
    uses = defaultdict[str, set[tuple[str, AxisOrder]]](set)
    for view in views(needed, {op for op, _ in _FILTERS} | _FLIPS.keys() | _LOOKED_UP):
        for node in view.nodes.values():
            if node.op in _SEEN_THROUGH | _NO_USE or any(called(node, library)):
                continue
            for index, text in enumerate(data_inputs(node)):
                name = _variable(view, text)
                if name in keys and keys[name] in shapes:
                    told = _told(node, index, len(shapes[keys[name]]))
                    uses[keys[name]].add((node.op, told))
    return uses


def _variable(view: View, text: str) -> str | None:
    """The variable whose value an input is, in its own shape but for dimensions of one."""
    for _ in range(_MOST_STEPS):
        name = text.partition(":")[0]
        if view.caller is not None and name in view.arguments:
            view, text = view.caller, view.arguments[name]
            continue
        node = view.nodes.get(name)
        if node is None or node.op in VARIABLE_OPS:
            return node and node.name
        inputs = data_inputs(node)
        if node.op not in _SEEN_THROUGH or not inputs:
            return None
        text = inputs[0]
    return None


def _told(node: NodeDef, index: int, rank: int) -> AxisOrder:
    """What an operation tells of a variable that is its input; `UNKNOWN` where it is nothing."""
    if index == 1 and (node.op, rank) in _FILTERS:
        return _FILTERS[node.op, rank]
    if node.op in _FLIPS and rank == 2 and index < 2:
        flipped = attribute_of(node, _FLIPS[node.op][index]).b
        return AS_IT_IS if flipped == (index == 1) else _SWAPPED
    return AS_IT_IS if node.op in _LOOKED_UP and index == 0 else UNKNOWN
