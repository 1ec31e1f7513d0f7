"""One freeze from start to end: frozen, compared with the original, and only then written.

Both graphs are run on the same values. TensorFlow's own rewriting of graphs is off for that: what
it makes of constants it does not make of variables, and the last bits of a result tell the two
apart.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from checkpoints.reader import Array
from data import files
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile, format_shape
from metagraph.model import checkpoint_of
from metagraph.parsing import add_description
from metagraph.safety import RANDOM_OPS
from metagraph.session import InferenceGraph, describe_tensors, load_inference_graph
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
from tools.graph_nodes import graph_parts, without_large_constants
from tools.random_batch import try_batches

TOLERANCE = 1e-6  # Absolute and relative: |a - b| <= TOLERANCE + TOLERANCE |a|.
_SHOWN = 3


class Reference(NamedTuple):
    """What a graph computes before anything is made of it.

    Attributes:
      feeds: tensor -> its value, of each input.
      results: tensor -> its value, of each output.
      random: the outputs with another value at each run on the same input; not to be compared.
    """

    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    random: tuple[str, ...]


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

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user.
    """
    return with_model(config, lambda meta, _: _freeze(config, meta))


def _freeze(config: FreezeConfig, meta: MetaGraphFile) -> Record:
    check_target(config.output, [meta.path, *config.asset.values()], overwrite=config.overwrite)
    frozen, reference, difference = freeze_and_compare(meta, config, config.scope)
    add_description(frozen.meta, frozen.scope)
    write_whole(config.output, graph_parts(frozen.meta.graph_def))
    return {
        "output": config.output,
        "meta": meta.path,
        "checkpoint": checkpoint_of(meta),
        "inputs": _tensors(frozen.plan.inputs, frozen.inputs, meta),
        "outputs": _tensors(frozen.plan.outputs, frozen.outputs, meta),
        "off": dict(frozen.plan.off),
        "nodes": len(frozen.meta.graph_def.node),
        "size": files.size(config.output),
        "tables": [*frozen.meta.collection_def[TABLE_INITIALIZERS].node_list.value],
        "largest_difference": difference,
        "random": list(reference.random),
    }


def _tensors(names: Mapping[str, str], kept: Mapping[str, str], meta: MetaGraphFile) -> Record:
    """The tensors that are `kept` by their keys, as those called `names` are in the file."""
    infos = describe_tensors(meta, [names[key] for key in kept]) if kept else ()
    return {
        key: {"name": name, "dtype": info.dtype.name, "shape": info.shape}
        for (key, name), info in zip(kept.items(), infos, strict=True)
    }


def freeze_and_compare(
    meta: MetaGraphFile, config: PartConfig, scope: str = ""
) -> tuple[FrozenGraph, Reference, float]:
    """Freezes, and sees that the result is the same; `scope` is that of `freeze_plan`.

    Returns:
      The graph, what the original computes with a batch, and the largest difference from that.

    Raises:
      CheckpointError, ToolError: it cannot be frozen or run, or is not the same.
    """
    plan = plan_freeze(meta, config)
    reference = run_original(plan, config)  # Its values are freed before others are read.
    frozen = freeze_plan(plan, config, scope)
    results = run_frozen(frozen, reference, config)
    return frozen, reference, largest_difference(reference, results, "the frozen graph")


def run_original(plan: FreezePlan, config: PartConfig) -> Reference:
    """Runs the graph with its own checkpoint on a made-up batch, what is off fed with its value.

    Raises:
      CheckpointError: the graph cannot be loaded.
      ToolError: it takes none of the batches that are tried.
    """
    inputs = list(dict.fromkeys(plan.inputs.values()))
    with load_inference_graph(
        plan.meta,
        list(dict.fromkeys(plan.outputs.values())),
        [*inputs, *plan.off],
        trust_graph=config.trust_graph,
        assets=config.asset,
        time_limit=config.limit,
        optimize=False,
    ) as graph:
        infos = graph.feeds[: len(inputs)]
        off = [
            np.asarray(value, info.dtype.as_numpy_dtype)
            for value, info in zip(plan.off.values(), graph.feeds[len(inputs) :], strict=True)
        ]
        try:
            values, results = try_batches(plan.meta, infos, lambda v: graph.run(*v, *off))
        except CheckpointError as error:
            raise ToolError(
                f"{plan.meta.path} takes no values that could be made up for "
                f"{first_few([*map(str, infos)], _SHOWN)} ({error}): cut it at an inner tensor "
                "with --inputs"
            ) from error
        random = _random(graph, [*values, *off], results)
    feeds = {info.name: value for info, value in zip(infos, values, strict=True)}
    names = [info.name for info in graph.fetches]
    return Reference(feeds, dict(zip(names, results, strict=True)), random)


def _random(
    graph: InferenceGraph, fed: Sequence[Array], results: Sequence[Array]
) -> tuple[str, ...]:
    """The outputs that another run gives another value; they are warned of."""
    nodes = [name for op, found in graph.nodes_by_op.items() if op in RANDOM_OPS for name in found]
    if not nodes:
        return ()
    triples = zip(graph.fetches, results, graph.run(*fed), strict=True)
    random = tuple(info.name for info, one, two in triples if _difference(one, two) != 0)
    if random:
        logging.warning(
            "%s: another value at each run on the same input, so that it cannot be compared; "
            "random: %s",
            ", ".join(random),
            first_few(nodes, _SHOWN),
        )
    return random


def run_frozen(frozen: FrozenGraph, reference: Reference, config: PartConfig) -> dict[str, Array]:
    """The outputs of the frozen graph, by the original's names, on the values of the reference.

    Large constants are fed, each as its node has it: TensorFlow would make several copies of them.

    Raises:
      CheckpointError: the graph cannot be imported, or fails.
    """
    inputs = {name: frozen.plan.inputs[key] for key, name in frozen.inputs.items()}
    outputs = {name: frozen.plan.outputs[key] for key, name in frozen.outputs.items()}
    light, constants = without_large_constants(frozen.meta, outputs)
    path = frozen.plan.meta.path
    with load_inference_graph(
        MetaGraphFile(path, path, light),
        [*outputs],
        [*inputs, *constants],
        trust_graph=config.trust_graph,
        time_limit=config.limit,
        optimize=False,
    ) as graph:
        values = [reference.feeds[name] for name in inputs.values()]
        results = graph.run(*values, *constants.values())
    return dict(zip(outputs.values(), results, strict=True))


def largest_difference(
    reference: Reference, results: Mapping[str, Array], what: str, tolerance: float = TOLERANCE
) -> float:
    """The largest absolute difference of results from the reference's.

    Args:
      reference: of the original.
      results: tensor -> value.
      what: has given them, for the error line.
      tolerance: absolute and relative.

    Raises:
      ToolError: a value differs by more than the tolerance, or is of another shape or dtype.
    """
    largest = 0.0
    for name, expected in reference.results.items():
        if name in reference.random:
            continue
        found = results[name]
        difference = _difference(expected, found)
        if difference is None or not _is_close(expected, found, tolerance):
            told = "of another shape or kind" if difference is None else f"by {difference:g}"
            raise ToolError(f"{what} gives another {name} than the original: it differs {told}")
        largest = max(largest, difference)
    return largest


def _is_close(expected: Array, found: Array, tolerance: float) -> bool:
    if expected.dtype.kind not in "fcV":
        return bool(np.array_equal(expected, found))
    one, two = _wide(expected), _wide(found)
    return bool(np.allclose(two, one, rtol=tolerance, atol=tolerance, equal_nan=True))


def _difference(expected: Array, found: Array) -> float | None:
    """The largest absolute difference; None for another shape or dtype."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return None
    if expected.dtype.kind not in "iufcV":
        return 0.0 if np.array_equal(expected, found) else 1.0
    one, two = _wide(expected), _wide(found)
    with np.errstate(invalid="ignore"):
        differences = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0, abs(one - two))
    return float(np.max(differences, initial=0.0))


def _wide(value: Array) -> Array:
    """In a dtype that NumPy calculates with: bfloat16 and its kin are none."""
    return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)


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
