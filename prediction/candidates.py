"""What could be fed to and fetched from a graph that does not say so itself.

Names of strangers' graphs mean nothing: a placeholder such as `save/Const` is no input of the
model. Where rows come from a queue, an iterator or a parser, its outputs can be fed in its place.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from checkpoints.loading.meta_graph_file import (
    PLACEHOLDERS,
    PLACEHOLDERS_WITH_DEFAULT,
    MetaGraphFile,
    node_of,
)
from checkpoints.loading.sub_graph import SubGraph
from prediction.likely_outputs import HEADS, likely_outputs, most_likely
from prediction.plumbing import handled_iterators, is_source, plumbing
from prediction.wiring import Wiring, dependence, wiring_of

_MAX_OUTPUTS = 10


class Candidates(NamedTuple):
    """Full names of tensors.

    Attributes:
      inputs: the model's placeholders: those of the signature first, then those without a default.
      pipeline: what could be fed where the rows of the prediction come from a pipeline.
      outputs: what could be fetched, the likeliest first.
    """

    inputs: tuple[str, ...]
    pipeline: tuple[str, ...]
    outputs: tuple[str, ...]


def find_candidates(
    meta: MetaGraphFile, signed: Collection[str] = (), wanted: Sequence[str] = ()
) -> Candidates:
    """Looks through the whole graph; takes time in proportion to it.

    Args:
      meta: the file.
      signed: the inputs that the signature names.
      wanted: what is to be predicted; by default, the likeliest outputs.
    """
    wiring = wiring_of(meta)
    left_out = plumbing(meta, wiring, results=HEADS)
    inputs = _inputs(wiring, left_out, signed)
    pipeline = _pipeline(wiring, left_out)
    fed = (*pipeline, *inputs)
    needs = dependence(wiring, fed, left_out)
    likely = likely_outputs(wiring, needs)
    predicted = [node_of(name) for name in wanted] or [x.name for x in likely if x.predicts]
    return Candidates(
        inputs=inputs,
        pipeline=_needed(pipeline, fed, [needs.get(name, 0) for name in predicted]),
        outputs=most_likely(likely, _MAX_OUTPUTS),
    )


def _inputs(wiring: Wiring, left_out: Collection[str], signed: Collection[str]) -> tuple[str, ...]:
    ops = {f"{name}:0": node.op for name, node in wiring.nodes.items() if name not in left_out}
    plain = [name for name, op in ops.items() if op in PLACEHOLDERS]
    optional = [name for name, op in ops.items() if op in PLACEHOLDERS_WITH_DEFAULT]
    return tuple(dict.fromkeys([*signed, *plain, *optional]))


def _pipeline(wiring: Wiring, left_out: Collection[str]) -> tuple[str, ...]:
    """The outputs of sources that the model takes, in the file's order."""
    sources = [name for name, node in wiring.nodes.items() if is_source(node)]
    return tuple(
        tensor
        for name in sources
        for tensor in _taken_of(wiring, name, set(wiring.takers.get(name, ())).difference(left_out))
    )


def _taken_of(wiring: Wiring, name: str, takers: Collection[str]) -> list[str]:
    """The outputs of a node that some of its takers take, in order."""
    tensors = set[str]().union(*(wiring.tensors_taken(taker, name) for taker in takers))
    return sorted(tensors, key=lambda tensor: int(tensor.rpartition(":")[2]))


def _needed(pipeline: Sequence[str], fed: Sequence[str], needs: Collection[int]) -> tuple[str, ...]:
    """Those of the pipeline's tensors that one of some nodes depends on."""
    bits = {name: 1 << bit for bit, name in enumerate(fed)}
    return tuple(name for name in pipeline if any(bits[name] & need for need in needs))


def without_handles(
    needed: SubGraph, unfed: Sequence[str], fetches: Sequence[str]
) -> Iterator[str]:
    """Placeholders to feed; in place of an iterator's handle, what comes out of the iterator.

    Args:
      needed: what the fetched tensors need.
      unfed: the placeholders among it.
      fetches: the fetched tensors.
    """
    if not unfed:
        return
    wiring = wiring_of(needed.meta)
    for placeholder in unfed:
        tensors = list(_from_handle(wiring, needed, node_of(placeholder), fetches))
        yield from tensors or [placeholder]


def _from_handle(
    wiring: Wiring, needed: SubGraph, placeholder: str, fetches: Sequence[str]
) -> Iterator[str]:
    for iterator in handled_iterators(wiring, placeholder):
        for source in dict.fromkeys(wiring.takers.get(iterator, ())):
            if source not in needed.names or not is_source(wiring.nodes[source]):
                continue
            takers = needed.names.intersection(wiring.takers.get(source, ()))
            taken = _taken_of(wiring, source, takers)
            asked = [name for name in fetches if node_of(name) == source]
            yield from (n for n in dict.fromkeys([*asked, *taken]) if n not in needed.feeds)
