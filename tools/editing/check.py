"""Sees that an edited checkpoint with its graph predicts what the original does."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import Array
from checkpoints.loading.inference_graph import InferenceGraph, load_inference_graph
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_values import graph_variables, unavailable
from prediction.feeds import Feed, feed_value
from tools.common.errors import ToolError
from tools.common.random_batch import try_batches
from tools.editing.references import Names

# The distance from 1 to the next number, by the name of a dtype.
_EPSILON = {"bfloat16": 2**-7, "float16": 2**-10, "float32": 2**-23, "float64": 2**-52}
_EPSILONS = 16
_FEED = "--feed gives inputs of your own in place of random ones"


class Question(NamedTuple):
    """What both are asked.

    Attributes:
      outputs: the tensors that are compared, by their old names.
      inputs: those that are fed, likewise.
      feeds: values for some of the inputs; the others are random.
      assets: files for lookup tables, as `load_inference_graph` takes them; by old names.
      trust_graph: as it takes it.
      time_limit: likewise.
      tolerance: the largest difference that is allowed after a cast, as a part of the largest
        number of an output; None for 16 epsilons of the dtype.
    """

    outputs: Sequence[str]
    inputs: Sequence[str]
    feeds: Mapping[str, Feed]
    assets: Mapping[str, str]
    trust_graph: bool
    time_limit: TimeLimit
    tolerance: float | None = None


class Answer(NamedTuple):
    """How far the two are apart.

    Attributes:
      largest: the largest difference, as a part of the largest number of its output.
      tolerance: the largest that is allowed; 0 where the bytes have to be equal.
    """

    largest: float
    tolerance: float


def check_same(
    old: MetaGraphFile,
    new: MetaGraphFile,
    names: Names,
    question: Question,
    cast: str | None,
) -> Answer:
    """Runs both on the same values.

    Without a cast, each output has to have the very same bytes. With one, its numbers may differ by
    so much of the largest of them: by default 16 epsilons of the dtype, which are 1.6 percent for
    float16 and 13 for bfloat16. Whole numbers, such as classes, may be any, as what was nearly the
    largest may become the largest.

    Args:
      old: the original.
      new: the edited one, as it was written.
      names: the names of its nodes, without those that it no longer has.
      question: by old names.
      cast: the name of the dtype that values were rounded to, None where they were not.

    Raises:
      CheckpointError, PredictionError: the original cannot be run.
      ToolError: the other cannot, or they differ.
    """
    lost = unavailable(new, graph_variables(new))
    if len(lost) > len(unavailable(old, graph_variables(old))):
        raise ToolError(f"nothing is written, as the result could not be restored: {lost[0]}")
    values, expected = _ask_original(old, question)
    found = _ask_result(new, names, question, values)
    tolerance = 0.0
    if cast is not None:
        tolerance = _EPSILONS * _EPSILON[cast] if question.tolerance is None else question.tolerance
    return _compare(question.outputs, expected, found, tolerance)


def _ask_original(meta: MetaGraphFile, question: Question) -> tuple[list[Array], list[Array]]:
    """The values of the inputs, and what the original makes of them, which has to be certain."""
    with _load(meta, question, question.outputs, question.inputs) as graph:
        values, expected = _try(meta, graph, question.feeds)
        again = graph.run(*values)
    for name, first, second in zip(question.outputs, expected, again, strict=True):
        if not _equal(first, second):
            raise ToolError(
                f"{name} of {meta.path} is another at each run on the same input, so that nothing "
                f"can be compared: {_FEED}, such as for what switches dropout off"
            )
    return values, expected


def _ask_result(
    meta: MetaGraphFile, names: Names, question: Question, values: Sequence[Array]
) -> list[Array]:
    """What the edited graph makes of the same values."""
    outputs = [*map(names.of_node, question.outputs)]
    assets = {names.of_node(name): path for name, path in question.assets.items()}
    pairs = zip(question.inputs, values, strict=True)
    fed = {names.of_node(name): value for name, value in pairs if _is_in(name, names)}
    try:
        with _load(meta, question._replace(assets=assets), outputs, [*fed]) as graph:
            return graph.run(*fed.values())
    except CheckpointError as error:
        raise ToolError(f"nothing is written, as the result does not run: {error}") from error


def _is_in(tensor: str, names: Names) -> bool:
    """Whether the edited graph still has an input, which no output may need."""
    return node_of(tensor) in names.nodes


def _load(
    meta: MetaGraphFile, question: Question, outputs: Sequence[str], inputs: Sequence[str]
) -> InferenceGraph:
    return load_inference_graph(
        meta,
        outputs,
        inputs,
        trust_graph=question.trust_graph,
        assets=question.assets,
        time_limit=question.time_limit,
    )


def _try(
    meta: MetaGraphFile, graph: InferenceGraph, feeds: Mapping[str, Feed]
) -> tuple[list[Array], list[Array]]:
    """The values that are given, and others made up that the graph takes; and what it computes."""
    given = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
    unfed = [info for info in graph.feeds if info.name not in feeds]

    def all_values(made_up: Sequence[Array]) -> list[Array]:
        rest = iter(made_up)
        return [given[i.name] if i.name in given else next(rest) for i in graph.feeds]

    try:
        made_up, expected = try_batches(meta, unfed, lambda v: graph.run(*all_values(v)))
    except CheckpointError as error:
        raise ToolError(f"the original cannot be run, to compare with: {error}; {_FEED}") from error
    return all_values(made_up), expected


def _compare(
    names: Sequence[str], expected: Sequence[Array], found: Sequence[Array], tolerance: float
) -> Answer:
    largest = 0.0
    for name, one, other in zip(names, expected, found, strict=True):
        apart = 0.0 if _equal(one, other) else _distance(one, other, tolerance)
        if not apart <= tolerance:
            hint = " (--tolerance allows another part)" if tolerance else ""
            raise ToolError(
                f"nothing is written, as {name} would be another: it differs by {apart:.3g} of its "
                f"largest number, more than {tolerance:.3g}{hint}"
            )
        largest = max(largest, apart)
    return Answer(largest, tolerance)


def _equal(one: Array, other: Array) -> bool:
    if one.dtype.kind == "O":
        return np.array_equal(one, other)
    same_kind = one.shape == other.shape and one.dtype == other.dtype
    return same_kind and one.tobytes() == other.tobytes()


def _distance(one: Array, other: Array, tolerance: float) -> float:
    """The largest difference of two that are not equal, by the largest number; or infinity."""
    if one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind == "O":
        return float("inf")
    if one.dtype.kind in "biu":
        return 0.0 if tolerance else float("inf")
    kind = np.complex128 if one.dtype.kind == "c" else np.float64
    first, second = one.astype(kind), other.astype(kind)
    both = np.isfinite(first) & np.isfinite(second)
    if not _equal(first[~both], second[~both]) and not np.array_equal(
        first[~both], second[~both], equal_nan=True
    ):
        return float("inf")
    if not both.any():
        return 0.0
    scale = float(np.abs(first[both]).max())
    apart = float(np.abs(first[both] - second[both]).max())
    return apart / scale if scale else float("inf")
