"""One freeze from start to end: frozen, compared with the original, and only then written.

Both graphs are run on the same values, without TensorFlow's own rewriting of graphs: what it makes
of constants it does not make of variables, so that the last bits of a result would differ.
"""

import itertools
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import Array
from data import files
from errors import CheckpointError, ToolError, first_few
from metagraph.description import TensorInfo, constant, format_shape
from metagraph.graph import attribute_of
from metagraph.meta import MetaGraphFile, add_description, node_of
from metagraph.model import checkpoint_of
from metagraph.session import InferenceGraph, load_inference_graph, warn_if_random
from prediction.chosen_model import with_model
from prediction.file_inputs import MAX_BYTES
from prediction.output import check_target, write_whole
from prediction.plan import feed_value, feeds_by_tensor
from prediction.row_runs import warn_of_mixing
from tools.command import Record, format_bytes, table
from tools.differences import compare
from tools.folding import make_placeholder
from tools.freeze import FreezeConfig, PartConfig
from tools.frozen_graph import TABLE_INITIALIZERS, FreezePlan, FrozenGraph, freeze_plan, plan_freeze

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
    """Freezes and compares; writes the file only where all is equal, as `docs/json.md` has it."""
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
        "inputs": described(frozen.inputs, prefix),
        "outputs": described(frozen.plan.outputs, prefix),
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


def described(infos: Mapping[str, TensorInfo], prefix: str = "") -> Record:
    """Tensors as JSON values, by the same keys; `prefix` comes before their names."""
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
    """The frozen graph, what the original computes with a batch, the largest difference."""
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
    """Runs the graph with its own checkpoint on a made-up batch, what is off fed with its value."""
    infos = list(dict.fromkeys(plan.inputs.values()))
    feeds = feeds_by_tensor(plan.meta, plan.model, config.feed, MAX_BYTES)
    if unknown := [name for name in feeds if name not in {info.name for info in infos}]:
        named = first_few([info.name for info in infos], _SHOWN) or "none"
        raise ToolError(f"--feed: {unknown[0]} is no input; there is {named}: cut it with --inputs")
    with load_inference_graph(
        plan.meta,
        list(dict.fromkeys(info.name for info in plan.outputs.values())),
        [*(info.name for info in infos), *plan.off],
        trust_graph=config.trust_graph,
        assets=config.asset,
        time_limit=config.limit,
        optimize=False,
    ) as graph:
        given = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
        try:
            values, results = try_batches(graph, {**given, **plan.off})
        except CheckpointError as error:
            unfed = first_few([str(i) for i in infos if i.name not in given], _SHOWN)
            raise ToolError(
                f"{plan.meta.path} takes no values that could be made up for {unfed or 'nothing'} "
                f"({error}): give some with --feed, or shapes with --shape, or cut it with --inputs"
            ) from error
        random = warn_if_random(graph, values, results)
        for info in graph.fetches:
            if info.has_rows and graph.mixing(info.name):
                warn_of_mixing(graph, info.name)
    fed, found = ([info.name for info in side] for side in (graph.feeds, graph.fetches))
    return Reference(
        dict(zip(fed, values, strict=True)), dict(zip(found, results, strict=True)), random
    )


def run_frozen(frozen: FrozenGraph, reference: Reference, config: PartConfig) -> dict[str, Array]:
    """The outputs of the frozen graph, by name, on the values of the reference.

    Large constants are fed, as TensorFlow would make several copies of them. Raises CheckpointError
    where the graph cannot be imported, or fails.
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
        copy = light.graph_def.node.add(name=node.name)
        tensor = attribute_of(node, "value").tensor
        is_free = node.op == "Const" and not node.input and node.name not in fetched
        if is_free and len(tensor.tensor_content) >= _LARGE:  # As variables are kept.
            found[f"{node.name}:0"] = value = constant(tensor)
            make_placeholder(copy, tf.as_dtype(tensor.dtype), value.shape)
        else:
            copy.CopyFrom(node)
    return light, found


def largest_difference(
    reference: Reference, results: Mapping[str, Array], what: str, tolerance: float | None = None
) -> float:
    """The largest absolute difference of results, by tensor, from the reference's.

    `what` has given them. Raises ToolError where a value is of another shape or dtype, or differs
    by more than the tolerance that the user gives, absolute and relative; by default 1e-6.
    """
    allowed = TOLERANCE if tolerance is None else tolerance
    hint = "" if tolerance is None else f", more than --tolerance={tolerance:g}; nothing is kept"
    largest = 0.0
    for name in [name for name in reference.results if name not in reference.random]:
        expected, found, told = reference.results[name], results[name], "of another shape or kind"
        if expected.shape == found.shape and expected.dtype == found.dtype:
            apart = compare(expected, found)
            difference = float(apart.differing > 0 if apart.largest is None else apart.largest)
            if not apart.differing or _is_close(expected, found, allowed):
                largest = max(largest, difference)
                continue
            told = f"by {difference:g}"
        raise ToolError(f"{what} gives another {name} than the original: it differs {told}{hint}")
    return largest


def _is_close(expected: Array, found: Array, tolerance: float) -> bool:
    """Whether all numbers, none of them whole, are within the tolerance."""
    if expected.dtype.kind not in "fcV":  # bfloat16 is "V".
        return False
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    one, two = expected.astype(wide), found.astype(wide)
    return np.allclose(two, one, rtol=tolerance, atol=tolerance, equal_nan=True)


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


# Values to try a graph on that nobody has given any data for, made up of its inputs' dtypes.

_SEED = 0
# What stands for a size, a rank, or a limit of integers that nothing tells, the likeliest first:
# such numbers of rows or words are below one that is not known.
_ROWS, _BELOW, _RANKS, _WIDTHS = (2, 1), (2, 1), (1, 2, 4, 0, 3), (8, 28, 32, 64, 224)
_MOST_BYTES = 16 << 20
_TRIALS = "finding values that the graph takes"
_LEVELS = 256  # Of a pixel.
_OF_ROWS = re.compile(r"batch_?size|num_?(rows|examples|samples)", re.IGNORECASE)
_Trial = tuple[tuple[tuple[int, ...], ...], int, int]  # Shapes, rows, limit of integers.


def try_batches(
    graph: InferenceGraph, given: Mapping[str, Array]
) -> tuple[list[Array], list[Array]]:
    """A value for each of the graph's feeds that it runs with, those `given` by name; its results.

    They are the same each time: floating numbers in [0, 1), bytes in [0, 256), other integers 0 or
    1, texts empty. A single bool is False, as it is most often a switch for training, and a single
    integer whose name says so the number of rows. For sizes that are not known, some usual ones are
    tried in the time of one run. Raises CheckpointError, the first one of a run, where it takes
    none; ToolError where a dtype has no values.
    """
    first: CheckpointError | None = None
    infos = [i._replace(shape=given[i.name].shape) if i.name in given else i for i in graph.feeds]
    limit, graph.time_limit = graph.time_limit, replace(graph.time_limit, end_after=None)
    end = time.monotonic() + (limit.seconds or math.inf)
    with limit.over(_TRIALS):
        for shapes, rows, below in _trials(infos, given):
            rng = np.random.default_rng(_SEED)
            values = [
                given[i.name] if i.name in given else _value(i, shape, below, rows, rng)
                for i, shape in zip(infos, shapes, strict=True)
            ]
            try:
                results = graph.run(*values)
            except CheckpointError as refused:
                first = first or refused
            else:
                graph.time_limit = limit
                return values, results
            if time.monotonic() > end:
                break
    raise first or CheckpointError("there is nothing to try")


def _trials(infos: Sequence[TensorInfo], given: Mapping[str, Array]) -> list[_Trial]:
    """What is tried in turn, each of at most 16 MiB, or else the one that takes the least."""
    counted = any(_counts_rows(info) for info in infos)
    limits = _BELOW if any(info.dtype.is_integer for info in infos) else _BELOW[:1]
    told = [value.shape[0] for value in given.values() if value.ndim]
    known = [info.shape[0] for info in infos if info.shape and info.shape[0]]
    numbers = dict.fromkeys([*told, _ROWS[0], *known, *_ROWS])
    sizes = dict[_Trial, int]()
    for width, rank, rows, below in itertools.product(_WIDTHS, _RANKS, numbers, limits):
        shapes = tuple(_shape(info, rows, rank, width) for info in infos)
        pairs = zip(infos, shapes, strict=True)
        taken = sum(math.prod(shape) * info.dtype.size for info, shape in pairs)
        sizes[shapes, rows * counted, below] = taken
    small = [trial for trial, size in sizes.items() if size <= _MOST_BYTES]
    return small or [min(sizes, key=lambda trial: sizes[trial])]


def _shape(info: TensorInfo, rows: int, rank: int, width: int) -> tuple[int, ...]:
    """Of a bool that may have any shape, that of a single one."""
    sizes = info.shape
    if sizes is None:
        sizes = () if info.dtype.is_bool else (None,) * rank
    guessed = zip(sizes, [rows, *[width] * len(sizes)], strict=False)
    return tuple(guess if size is None else size for size, guess in guessed)


def _counts_rows(info: TensorInfo) -> bool:
    is_one = info.shape == () and info.dtype.is_integer
    return is_one and _OF_ROWS.search(info.name) is not None


def _value(
    info: TensorInfo, shape: Sequence[int], below: int, rows: int, rng: np.random.Generator
) -> Array:
    """A value of the tensor's very dtype."""
    dtype = info.dtype
    if _counts_rows(info):
        return np.asarray(rows, dtype.as_numpy_dtype)
    if dtype == tf.string:
        return np.full(shape, b"", object)
    if dtype.is_bool:
        return np.asarray(rng.random(shape) < 0.5 if shape else False)
    if dtype.is_integer:
        most = _LEVELS if dtype == tf.uint8 and below > 1 else below
        return np.asarray(rng.integers(0, most, shape)).astype(dtype.as_numpy_dtype)
    if not (dtype.is_floating or dtype.is_complex):
        raise ToolError(f"{info.name} is a {dtype.name}, of which no value can be made up")
    numbers = rng.random(shape) + (1j * rng.random(shape) if dtype.is_complex else 0)
    return np.asarray(numbers).astype(dtype.as_numpy_dtype)
