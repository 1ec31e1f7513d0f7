"""One freeze from start to end: frozen, compared with the original, and only then written.

Both graphs are run on the same values. TensorFlow's own rewriting of graphs is off for that: what
it makes of constants it does not make of variables, and the last bits of a result tell the two
apart.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from data import files
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile, TensorInfo, format_shape, node_of
from metagraph.model import checkpoint_of
from metagraph.parsing import add_description
from metagraph.session import load_inference_graph, warn_if_random
from prediction.chosen_model import with_model
from prediction.output import check_target, write_whole
from tools.command import Record, format_bytes, table
from tools.freeze import FreezeConfig, PartConfig
from tools.frozen_graph import (
    TABLE_INITIALIZERS,
    FreezePlan,
    FrozenGraph,
    freeze_plan,
    plan_freeze,
)
from tools.frozen_variables import make_placeholder
from tools.random_batch import try_batches

TOLERANCE = 1e-6  # Absolute and relative: |a - b| <= TOLERANCE + TOLERANCE |a|.
_SHOWN = 3
_LARGE = 1 << 20  # Bytes.


class Reference(NamedTuple):
    """What a graph computes before anything is made of it, by full tensor names.

    The outputs that are `random`, another at each run on the same input, are not to be compared.
    """

    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    random: Sequence[str]


def freeze_to_file(config: FreezeConfig) -> Record:
    """Freezes, compares with the original, and writes the file only where all is equal.

    Returns:
      JSON values: `output`, the file; `meta`, that of the graph; `checkpoint`, the prefix of its
      variables, null where it has none; `inputs` and `outputs` of the frozen graph, each key of the
      signature -> `name`, `dtype` and `shape` (null where unknown, null sizes too); `off`, the
      original's training switches and dropouts -> the values they have for good; `nodes`, how many
      there are; `size`, bytes of the file; `tables`, the nodes that fill lookup tables, to be run
      first in a session; `largest_difference` from the original on the same batch; `random`, the
      outputs of the original that are random, and were not compared.
    """
    return with_model(config, lambda meta, _: _freeze(config, meta))


def _freeze(config: FreezeConfig, meta: MetaGraphFile) -> Record:
    check_target(config.output, [meta.path, *config.asset.values()], overwrite=config.overwrite)
    frozen, reference, difference = freeze_and_compare(meta, config)
    prefix = f"{config.scope}/" if config.scope else ""
    if prefix:
        _put_in_scope(frozen.meta, prefix)
    add_description(frozen.meta, prefix)
    write_whole(config.output, _graph_parts(frozen.meta.graph_def))
    return {
        "output": config.output,
        "meta": meta.path,
        "checkpoint": checkpoint_of(meta),
        "inputs": _tensors(frozen.inputs, prefix),
        "outputs": _tensors(frozen.plan.outputs, prefix),
        "off": frozen.plan.off_values,
        "nodes": len(frozen.meta.graph_def.node),
        "size": files.size(config.output),
        "tables": [*frozen.meta.collection_def[TABLE_INITIALIZERS].node_list.value],
        "largest_difference": difference,
        "random": list(reference.random),
    }


def _graph_parts(graph: GraphDef) -> Iterator[bytes]:
    """The bytes of a graph, node by node, so that no second copy of it need be in memory.

    Serialized messages that follow each other are one message, with the fields of all.
    """
    for node in graph.node:
        yield GraphDef(node=[node]).SerializeToString(deterministic=True)
    rest = GraphDef(library=graph.library, versions=graph.versions)
    yield rest.SerializeToString(deterministic=True)


def _tensors(infos: Mapping[str, TensorInfo], prefix: str) -> Record:
    return {
        key: {"name": prefix + info.name, "dtype": info.dtype.name, "shape": info.shape}
        for key, info in infos.items()
    }


def _put_in_scope(meta: MetaGraphDef, prefix: str) -> None:
    """Puts `prefix` before all names of nodes, as `tf.import_graph_def` under a name does."""
    for node in meta.graph_def.node:
        node.name = prefix + node.name
        node.input[:] = [
            f"^{prefix}{text[1:]}" if text.startswith("^") else prefix + text for text in node.input
        ]
    for signature in meta.signature_def.values():
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            info.name = prefix + info.name
    for collection in meta.collection_def.values():
        if collection.WhichOneof("kind") == "node_list":
            names = collection.node_list.value
            names[:] = [prefix + name for name in names]


def freeze_and_compare(
    meta: MetaGraphFile, config: PartConfig
) -> tuple[FrozenGraph, Reference, float]:
    """The frozen graph, what the original computes with a batch, the largest difference.

    Raises CheckpointError, ToolError where it cannot be frozen or run, or is not the same.
    """
    plan = plan_freeze(meta, config)
    reference = run_original(plan, config)  # Its values are freed before others are read.
    frozen = freeze_plan(plan, config)
    try:
        results = run_frozen(frozen, reference, config)
    except CheckpointError as error:
        raise ToolError(
            f"frozen, {error}; a frozen graph has no variable that something could change or pass "
            "on: name others with --fetch"
        ) from error
    return frozen, reference, largest_difference(reference, results, "the frozen graph")


def run_original(plan: FreezePlan, config: PartConfig) -> Reference:
    """Runs the graph with its own checkpoint on a made-up batch, what is off fed with its value.

    Raises CheckpointError where it cannot be loaded, ToolError where it takes none of the batches
    that are tried.
    """
    infos = list(dict.fromkeys(plan.inputs.values()))
    with load_inference_graph(
        plan.meta,
        list(dict.fromkeys(info.name for info in plan.outputs.values())),
        [*(info.name for info in infos), *plan.off],
        trust_graph=config.trust_graph,
        assets=config.asset,
        time_limit=config.limit,
        optimize=False,
    ) as graph:
        off = plan.off.values()
        try:
            values, results = try_batches(infos, lambda v: graph.run(*v, *off))
        except CheckpointError as error:
            raise ToolError(
                f"{plan.meta.path} takes no values that could be made up for "
                f"{first_few([*map(str, infos)], _SHOWN)} ({error}): cut it at an inner tensor "
                "with --inputs"
            ) from error
        random = warn_if_random(graph, [*values, *off], results)
    feeds = {info.name: value for info, value in zip(infos, values, strict=True)}
    names = [info.name for info in graph.fetches]
    return Reference(feeds, dict(zip(names, results, strict=True)), random)


def run_frozen(frozen: FrozenGraph, reference: Reference, config: PartConfig) -> dict[str, Array]:
    """The outputs of the frozen graph, by name, on the values of the reference.

    Large constants are fed, each as its node has it: TensorFlow would make several copies of them.
    Raises CheckpointError where the graph cannot be imported, or fails.
    """
    light, constants = _without_large_constants(frozen.meta, [*reference.results])
    feeds = {info.name: reference.feeds[info.name] for info in frozen.inputs.values()} | constants
    path = frozen.plan.meta.path
    with load_inference_graph(
        MetaGraphFile(path, path, light),
        [*reference.results],
        [*feeds],
        trust_graph=config.trust_graph,
        time_limit=config.limit,
        optimize=False,
    ) as graph:
        return dict(zip(reference.results, graph.run(*feeds.values()), strict=True))


def _without_large_constants(
    meta: MetaGraphDef, fetches: Collection[str]
) -> tuple[MetaGraphDef, dict[str, Array]]:
    """The same with placeholders for large constants but `fetches`, and their values by name.

    Their memory is not copied: the values are read-only.
    """
    light, found = MetaGraphDef(collection_def=meta.collection_def), dict[str, Array]()
    light.graph_def.versions.CopyFrom(meta.graph_def.versions)
    light.graph_def.library.CopyFrom(meta.graph_def.library)
    fetched = {node_of(name) for name in fetches}
    for node in meta.graph_def.node:
        if node.op == "Const" and not node.input and node.name not in fetched:
            tensor = node.attr["value"].tensor
            dtype, shape = tf.as_dtype(tensor.dtype), [d.size for d in tensor.tensor_shape.dim]
            size = math.prod(shape) * dtype.size
            if size >= _LARGE and len(tensor.tensor_content) == size:  # As variables are kept.
                make_placeholder(light.graph_def.node.add(name=node.name), dtype, shape)
                values = np.frombuffer(tensor.tensor_content, dtype.as_numpy_dtype)
                found[f"{node.name}:0"] = values.reshape(shape)
                continue
        light.graph_def.node.add().CopyFrom(node)
    return light, found


def largest_difference(
    reference: Reference, results: Mapping[str, Array], what: str, tolerance: float | None = None
) -> float:
    """The largest absolute difference of results, by tensor, from the reference's.

    `what` has given them, for the error line; the tolerance, absolute and relative, is what the
    user allows, by default 1e-6. Raises ToolError where a value differs by more, or is of another
    shape or dtype.
    """
    allowed = TOLERANCE if tolerance is None else tolerance
    hint = "" if tolerance is None else f", more than --tolerance={tolerance:g}; nothing is kept"
    largest = 0.0
    for name, expected in reference.results.items():
        if name in reference.random:
            continue
        found = results[name]
        told = "of another shape or kind"
        if expected.shape == found.shape and expected.dtype == found.dtype:
            difference, is_close = _difference(expected, found, allowed)
            if is_close:
                largest = max(largest, difference)
                continue
            told = f"by {difference:g}"
        raise ToolError(f"{what} gives another {name} than the original: it differs {told}{hint}")
    return largest


def _difference(expected: Array, found: Array, tolerance: float) -> tuple[float, bool]:
    """The largest absolute difference, and whether it is within the tolerance."""
    if expected.dtype.kind not in "iufcV":
        is_equal = np.array_equal(expected, found)
        return float(not is_equal), is_equal
    is_whole = expected.dtype.kind in "iu"
    kind = np.complex128 if expected.dtype.kind == "c" else np.float64  # bfloat16 is "V".
    one, two = expected.astype(kind), found.astype(kind)
    with np.errstate(invalid="ignore"):
        apart = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0, abs(one - two))
    is_close = np.allclose(two, one, rtol=tolerance, atol=tolerance, equal_nan=True)
    largest = float(np.max(apart, initial=0.0))
    return largest, np.array_equal(expected, found) if is_whole else is_close


def as_text(frozen: Record) -> str:
    """Lines for people."""
    rows = []
    for kind in ("inputs", "outputs"):
        for key, tensor in frozen[kind].items():
            told = f"{tensor['name']} {tensor['dtype']} {format_shape(tensor['shape'])}"
            rows.append((kind[:-1], key, told))
    rows += [("off", name, str(value)) for name, value in frozen["off"].items()]
    rows += [("table", name, "to be run first in a session") for name in frozen["tables"]]
    head = f"{frozen['output']}: {frozen['nodes']} nodes, {format_bytes(frozen['size'])}"
    lines = [head, *table(rows, indent=2)]
    if len(frozen["random"]) < len({tensor["name"] for tensor in frozen["outputs"].values()}):
        lines.append(f"largest difference from the original: {frozen['largest_difference']:g}")
    return "\n".join(lines)
