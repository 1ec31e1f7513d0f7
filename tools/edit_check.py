"""The graph that goes along with an edit: made, and run beside the original on the same values.

It is kept only if it predicts what the original does.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from checkpoints.naming import META_SUFFIX
from checkpoints.reader import Array, CheckpointReader
from errors import CheckpointError, ToolError
from file_io import write_file
from metagraph.meta import MetaGraphFile, node_of, read_meta_graph
from metagraph.model import read_model
from metagraph.session import InferenceGraph, load_inference_graph, random_outputs
from metagraph.variables import graph_variables, unavailable
from prediction import plan
from prediction.file_inputs import MAX_BYTES
from prediction.plan import feed_value
from tools.command import Record
from tools.differences import compare
from tools.edit import EditConfig
from tools.edit_graph import edit_graph
from tools.editing import READING, Tensor
from tools.freezing import try_batches

_FEED = "--feed gives inputs of your own in place of random ones"
# 16 times the distance from 1 to the next number: how far the numbers of an output may be apart by
# default after a cast, as a part of the largest of them.
_TOLERANCES = {"bfloat16": 2**-3, "float16": 2**-6, "float32": 2**-19, "float64": 2**-48}


def graph_maker(
    config: EditConfig, meta: MetaGraphFile, reader: CheckpointReader, tensors: Sequence[Tensor]
) -> Callable[[str], Record]:
    """Edits the graph; what it returns writes and checks it once the tensors are there."""
    with config.limit.over(READING):
        model = read_model(meta)
        known = () if config.fetch else model.outputs.values()
        outputs = [*dict.fromkeys([*plan.choose_fetches(meta, model, config.fetch), *known])]
        proto = edit_graph(meta, reader, tensors, outputs)

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
        given = {i.name: feed_value(feeds[i.name], i) for i in graph.feeds if i.name in feeds}
        try:
            values, expected = try_batches(graph, given)
        except CheckpointError as error:
            raise ToolError(
                f"the original cannot be run, to compare with: {error}; {_FEED}"
            ) from error
        random = random_outputs(graph, values, expected)
    if random:
        raise ToolError(
            f"{random[0]} of {meta.path} is another at each run on the same input, so that nothing "
            f"can be compared: {_FEED}, such as for what switches dropout off"
        )
    return dict(zip(names, values, strict=True)), expected


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
