"""Runs a graph, and what was frozen of it, on the same values, and compares what they give.

TensorFlow's own rewriting of graphs is off for that: what it makes of constants it does not make of
variables, and the last bits of a result tell the two apart.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from checkpoints.reader import Array
from errors import CheckpointError, ToolError, first_few
from metagraph.meta import MetaGraphFile
from metagraph.session import RANDOM_OPS, InferenceGraph, load_inference_graph
from tools.freeze import PartConfig
from tools.freeze_plan import FreezePlan
from tools.frozen_graph import FrozenGraph, freeze_plan, plan_of
from tools.graph_nodes import value_of, without_large_constants
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


def freeze_and_compare(
    meta: MetaGraphFile, config: PartConfig, scope: str = ""
) -> tuple[FrozenGraph, Reference, float]:
    """Freezes, and sees that the result is the same; `scope` is that of `freeze_plan`.

    Returns:
      The graph, what the original computes with a batch, and the largest difference from that.

    Raises:
      CheckpointError, ToolError: it cannot be frozen or run, or is not the same.
    """
    plan = plan_of(meta, config)
    reference = run_original(plan, config)  # Its values are freed before others are read.
    frozen = freeze_plan(plan, config, scope)
    results = run_frozen(frozen, reference, config)
    return frozen, reference, largest_difference(reference, results, "the frozen graph")


def run_original(plan: FreezePlan, config: PartConfig) -> Reference:
    """Runs the graph of the file with its own checkpoint, what is off fed with its value.

    The batch is made up of the dtypes and shapes of the inputs.

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
        return _reference(graph, values, off, results)


def _reference(
    graph: InferenceGraph, values: Sequence[Array], off: Sequence[Array], results: Sequence[Array]
) -> Reference:
    names = [info.name for info in graph.fetches]
    random: tuple[str, ...] = ()
    nodes = [name for op, found in graph.nodes_by_op.items() if op in RANDOM_OPS for name in found]
    if nodes:
        again = graph.run(*values, *off)
        pairs = zip(names, results, again, strict=True)
        random = tuple(name for name, one, two in pairs if _difference(one, two) != 0)
    if random:
        logging.warning(
            "%s: another value at each run on the same input, so that it cannot be compared; "
            "random: %s",
            ", ".join(random),
            first_few(nodes, _SHOWN),
        )
    feeds = {info.name: value for info, value in zip(graph.feeds, values, strict=False)}
    return Reference(feeds, dict(zip(names, results, strict=True)), random)


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
        results = graph.run(*values, *(value_of(node) for node in constants.values()))
    return dict(zip(outputs.values(), results, strict=True))


def largest_difference(
    reference: Reference, results: Mapping[str, Array], what: str, tolerance: float = TOLERANCE
) -> float:
    """Compares results with the reference's.

    Args:
      reference: of the original.
      results: tensor -> value.
      what: has given them, for the error line.
      tolerance: absolute and relative.

    Returns:
      The largest absolute difference.

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
