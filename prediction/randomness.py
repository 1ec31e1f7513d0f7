"""Tells whether a graph gives something else when it is run again on the same input."""

from collections.abc import Sequence

import numpy as np
from absl import logging

from checkpoints.errors import first_few
from checkpoints.loading.inference_graph import InferenceGraph
from prediction.casting import Array

# Those that draw from a generator whose state goes on from run to run, a fixed seed or not.
RANDOM_OPS = frozenset(
    {
        "AllCandidateSampler",
        "FixedUnigramCandidateSampler",
        "LearnedUnigramCandidateSampler",
        "LogUniformCandidateSampler",
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomCrop",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "RngReadAndSkip",
        "SampleDistortedBoundingBox",
        "SampleDistortedBoundingBoxV2",
        "StatefulRandomBinomial",
        "StatefulStandardNormal",
        "StatefulStandardNormalV2",
        "StatefulTruncatedNormal",
        "StatefulUniform",
        "StatefulUniformFullInt",
        "StatefulUniformInt",
        "ThreadUnsafeUnigramCandidateSampler",
        "TruncatedNormal",
        "UniformCandidateSampler",
    }
)
_SHOWN = 3


def warn_if_random(graph: InferenceGraph, fed: Sequence[Array], results: Sequence[Array]) -> None:
    """Warns where a second run on what was `fed` gives something else than `results`.

    Args:
      graph: it is run only where there are random nodes.
      fed: the values of its feeds.
      results: what the first run gave.
    """
    nodes = [name for op, names in graph.nodes_by_op.items() if op in RANDOM_OPS for name in names]
    if not nodes:
        return
    again = graph.run(*fed)
    pairs = zip(graph.fetches, results, again, strict=True)
    differing = [info.name for info, first, second in pairs if not _equal(first, second)]
    if differing:
        logging.warning(
            "%s: another value at each run on the same input; random: %s. If it is dropout, feed "
            "its keep probability or its switch, or the tensor after it",
            ", ".join(differing),
            first_few(nodes, _SHOWN),
        )


def _equal(first: Array, second: Array) -> bool:
    if first.dtype.kind == "O":
        return np.array_equal(first, second)
    return first.shape == second.shape and first.tobytes() == second.tobytes()
