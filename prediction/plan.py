"""Which tensors are fetched and fed, told from the graph before anything is imported."""

from collections.abc import Callable, Collection, Sequence

from absl import logging

from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.sub_graph import SubGraph, sub_graph
from checkpoints.loading.tensor_info import TensorInfo
from prediction.candidates import without_handles
from prediction.errors import PredictionError
from prediction.model import Model
from prediction.offers import described, feedable, fetchable


def choose_fetches(meta: MetaGraphFile, model: Model, asked: Sequence[str]) -> tuple[str, ...]:
    """The tensors to fetch, each once.

    Args:
      meta: the file.
      model: its description.
      asked: as the user wrote them: tensors, or keys of the signature. None of them means the
        collection `predict`, with what a classifier's report shows beside it, or else the outputs
        of the signature.

    Raises:
      CheckpointError: there is no such tensor.
      PredictionError: none is asked for and the file names none.
    """
    names = [meta.tensor_name(text, model.fetch_keys) for text in asked]
    if not names:
        names = [*model.predict, *report_tensors(model)] or list(model.outputs.values())
    if not names:
        raise PredictionError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to compute with --fetch{fetchable(meta, model)}"
        )
    return tuple(dict.fromkeys(names))


def report_tensors(model: Model) -> tuple[str, ...]:
    """What a classifier's report takes; nothing where the graph is something else."""
    if model.classifier is None:
        return ()
    return (model.classifier.probabilities, model.classifier.classes)


def choose_row_input(
    meta: MetaGraphFile,
    model: Model,
    fetches: Sequence[str],
    fed: Collection[str],
    fits: Callable[[TensorInfo], bool],
) -> str:
    """The tensor that --input is for.

    It is the signature's input, where there is one, or else the one tensor that has to be fed for
    the fetched ones and is not fed by name; of several, the one that the rows fit.

    Args:
      meta: the file.
      model: its description.
      fetches: the tensors that are fetched.
      fed: those that are fed by name.
      fits: whether the rows could be fed to a tensor.

    Raises:
      PredictionError: there is no such one.
    """
    candidates = tuple(name for name in model.inputs.values() if name not in fed)
    if len(model.inputs) != 1 or not candidates:
        candidates = unfed(meta, fetches, fed)
    if len(candidates) == 1:
        return candidates[0]
    fitting = _fitting(meta, candidates, fits)
    if len(fitting) == 1:
        logging.info("--input is for %s, the only one left that it fits", fitting[0])
        return fitting[0].name
    if candidates:
        raise PredictionError(
            f"--input could be for any of {described(meta, candidates)}: give each as "
            "--input name=file"
        )
    raise PredictionError(
        f"nothing is left for --input to feed: {', '.join(fetches)} need no other placeholder; "
        f"any tensor can be fed by name with --feed{feedable(meta, model, fetches)}"
    )


def _fitting(
    meta: MetaGraphFile, candidates: Sequence[str], fits: Callable[[TensorInfo], bool]
) -> list[TensorInfo]:
    """Those of the candidates that the rows fit; none where this TensorFlow lacks one's type."""
    try:
        return [info for info in describe_tensors(meta, candidates) if fits(info)]
    except CheckpointError:
        return []


def unfed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
    """What `fetches` need beside what is fed: placeholders without a default.

    In place of one that is an iterator's handle, it is what comes out of the iterator.
    """
    needed = sub_graph(meta, fetches, fed)
    return tuple(dict.fromkeys(without_handles(needed, needed.unfed, fetches)))


def check_all_fed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> None:
    """Raises PredictionError where `fetches` need a tensor that is not fed, naming both."""
    missing = unfed(meta, fetches, fed)
    if missing:
        needing = next(fetch for fetch in fetches if unfed(meta, [fetch], fed))
        flags = " ".join(f"--feed {name.removesuffix(':0')}=..." for name in missing)
        raise PredictionError(
            f"{needing} needs {described(meta, missing)}: feed it with {flags}, or rows with "
            "--input name=file"
        )


def unneeded(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> list[str]:
    """Those of the fed tensors that `fetches` do not depend on."""
    needed = sub_graph(meta, fetches, fed).feeds.union(fetches)
    return [name for name in fed if name not in needed]


def own_data(needed: SubGraph) -> list[str]:
    """The iterators in a sub-graph over data that the graph itself brings along."""
    nodes = needed.meta.nodes
    return sorted(name for name in needed.names if nodes[name].op == "OneShotIterator")


def depends_on(meta: MetaGraphFile, fetch: str, fed: Collection[str]) -> bool:
    """Whether a fetched tensor is computed from, or is, one of the fed ones."""
    return fetch in fed or bool(sub_graph(meta, [fetch], fed).feeds)
