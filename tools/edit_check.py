"""Sees that an edited checkpoint with its graph predicts what the original does."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from checkpoints.reader import Array
from errors import CheckpointError, ToolError
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import TimeLimit
from metagraph.session import InferenceGraph, load_inference_graph
from metagraph.variables import graph_variables, unavailable
from prediction.plan import Feed, feed_value
from tools.array_figures import compare
from tools.random_batch import try_batches

# The distance from 1 to the next number, by the name of a dtype.
_EPSILON = {"bfloat16": 2**-7, "float16": 2**-10, "float32": 2**-23, "float64": 2**-52}
_EPSILONS = 16
_FEED = "--feed gives inputs of your own in place of random ones"


class Question(NamedTuple):
    """What both are asked.

    Attributes:
      outputs: the tensors that are compared.
      inputs: those that are fed.
      feeds: values for some of the inputs; the others are random.
      assets: files for lookup tables, as `load_inference_graph` takes them.
      trust_graph: as it takes it.
      time_limit: likewise.
      cast: the name of the dtype that values were rounded to; None where they were not.
      tolerance: the largest difference that is allowed after a cast, as a part of the largest
        number of an output; None for 16 epsilons of the dtype.
    """

    outputs: Sequence[str]
    inputs: Sequence[str]
    feeds: Mapping[str, Feed]
    assets: Mapping[str, str]
    trust_graph: bool
    time_limit: TimeLimit
    cast: str | None = None
    tolerance: float | None = None


class Answer(NamedTuple):
    """How far the two are apart, as a part of the largest number of an output.

    Attributes:
      largest: the largest difference.
      tolerance: the largest that is allowed; 0 where the bytes have to be equal.
    """

    largest: float
    tolerance: float


def check_same(old: MetaGraphFile, new: MetaGraphFile, question: Question) -> Answer:
    """Runs the original and the edited one, as it was written, on the same values.

    Without a cast, each output has to have the very same bytes. With one, its numbers may differ by
    so much of the largest of them: by default 16 epsilons of the dtype, which are 1.6 percent for
    float16 and 13 for bfloat16. Whole numbers, such as classes, may be any, as what was nearly the
    largest may become the largest.

    Raises:
      CheckpointError, PredictionError: the original cannot be run.
      ToolError: the other cannot, or they differ.
    """
    lost = unavailable(new, graph_variables(new))
    if len(lost) > len(unavailable(old, graph_variables(old))):
        raise ToolError(f"nothing is written, as the result could not be restored: {lost[0]}")
    values, expected = _ask_original(old, question)
    # An input that no output needs may be gone.
    fed = {name: value for name, value in values.items() if node_of(name) in new.nodes}
    try:
        with _load(new, question, [*fed]) as graph:
            found = graph.run(*fed.values())
    except CheckpointError as error:
        raise ToolError(f"nothing is written, as the result does not run: {error}") from error
    tolerance = 0.0
    if question.cast is not None:
        default = _EPSILONS * _EPSILON[question.cast]
        tolerance = default if question.tolerance is None else question.tolerance
    largest = 0.0
    for name, one, other in zip(question.outputs, expected, found, strict=True):
        apart = _apart(one, other, is_cast=question.cast is not None)
        if not apart <= tolerance:
            hint = " (--tolerance allows another part)" if tolerance else ""
            raise ToolError(
                f"nothing is written, as {name} would be another: it differs by {apart:.3g} of its "
                f"largest number, more than {tolerance:.3g}{hint}"
            )
        largest = max(largest, apart)
    return Answer(largest, tolerance)


def _load(meta: MetaGraphFile, question: Question, inputs: Sequence[str]) -> InferenceGraph:
    return load_inference_graph(
        meta,
        question.outputs,
        inputs,
        trust_graph=question.trust_graph,
        assets=question.assets,
        time_limit=question.time_limit,
    )


def _ask_original(meta: MetaGraphFile, question: Question) -> tuple[dict[str, Array], list[Array]]:
    """The values of the inputs, given or made up; and what it computes, which has to be certain."""
    with _load(meta, question, question.inputs) as graph:
        feeds = question.feeds
        given = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
        unfed = [info for info in graph.feeds if info.name not in feeds]

        def run(made_up: Sequence[Array]) -> tuple[dict[str, Array], list[Array]]:
            names = (info.name for info in unfed)
            values = given | dict(zip(names, made_up, strict=True))
            ordered = {info.name: values[info.name] for info in graph.feeds}
            return ordered, graph.run(*ordered.values())

        try:
            _, (values, expected) = try_batches(unfed, run)
        except CheckpointError as error:
            raise ToolError(
                f"the original cannot be run, to compare with: {error}; {_FEED}"
            ) from error
        again = graph.run(*values.values())
    for name, first, second in zip(question.outputs, expected, again, strict=True):
        if not compare(first, second).equal_bytes:
            raise ToolError(
                f"{name} of {meta.path} is another at each run on the same input, so that nothing "
                f"can be compared: {_FEED}, such as for what switches dropout off"
            )
    return values, expected


def _apart(one: Array, other: Array, *, is_cast: bool) -> float:
    """The largest difference by the largest number; infinity where they may not differ at all."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    found = compare(one, other)
    if found.equal_bytes:
        return 0.0
    if found.largest is None or one.dtype.kind in "biu":
        return 0.0 if is_cast and found.largest is not None else float("inf")
    finite = np.abs(one[np.isfinite(one)])
    scale = float(finite.max(initial=0)) or float("nan")
    apart = float(found.largest) / scale if found.largest else 0.0
    return apart if is_cast else apart or float("inf")
