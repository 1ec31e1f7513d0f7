"""Which tensors are fetched and fed, told from the graph before anything is imported."""

from collections.abc import Collection, Sequence

from checkpoints.errors import CheckpointError
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.sub_graph import SubGraph, sub_graph
from prediction.candidates import find_candidates
from prediction.errors import PredictionError
from prediction.model import Model

_MAX_NAMED = 5


def choose_fetches(meta: MetaGraphFile, model: Model, asked: Sequence[str]) -> tuple[str, ...]:
    """The tensors to fetch, each once.

    Args:
      meta: the file.
      model: its description.
      asked: as the user wrote them. None of them means the collection `predict`, with what a
        classifier's report shows beside it, or else the outputs of the signature.

    Raises:
      CheckpointError: there is no such tensor.
      PredictionError: none is asked for and the file names none.
    """
    names = [meta.tensor_name(text) for text in asked]
    if not names:
        names = [*model.predict, *report_tensors(model)] or list(model.outputs.values())
    if not names:
        raise PredictionError(
            f"{meta.path} has neither a collection 'predict' nor a signature that names an "
            f"output: name what to compute with --fetch{_fetchable(meta)}"
        )
    return tuple(dict.fromkeys(names))


def report_tensors(model: Model) -> tuple[str, ...]:
    """What a classifier's report takes; nothing where the graph is something else."""
    if model.classifier is None:
        return ()
    return (model.classifier.probabilities, model.classifier.classes)


def choose_row_input(
    meta: MetaGraphFile, model: Model, fetches: Sequence[str], fed: Collection[str]
) -> str:
    """The tensor that --input is for.

    It is the signature's input, where there is one, or else the one placeholder without default
    that the fetched tensors need and that is not fed by name.

    Raises:
      PredictionError: there is no such one.
    """
    candidates = tuple(name for name in model.inputs.values() if name not in fed)
    if len(model.inputs) != 1 or not candidates:
        candidates = unfed(meta, fetches, fed)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise PredictionError(
            f"--input could be for any of {_described(meta, candidates)}: name them with --feed"
        )
    raise PredictionError(
        f"nothing is left for --input to feed: {', '.join(fetches)} need no other placeholder; "
        f"any tensor can be fed by name with --feed{_feedable(meta)}"
    )


def unfed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
    """The placeholders without a default that `fetches` need beside what is fed."""
    return sub_graph(meta, fetches, fed).unfed


def check_all_fed(meta: MetaGraphFile, fetches: Sequence[str], fed: Collection[str]) -> None:
    """Raises PredictionError where `fetches` need a placeholder that is not fed, naming both."""
    missing = unfed(meta, fetches, fed)
    if missing:
        needing = next(fetch for fetch in fetches if unfed(meta, [fetch], fed))
        flags = " ".join(f"--feed {node_of(name)}=..." for name in missing)
        raise PredictionError(
            f"{needing} needs {_described(meta, missing)}: feed it with {flags}, or rows of one "
            "with --input"
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


def _described(meta: MetaGraphFile, names: Sequence[str]) -> str:
    return ", ".join(str(info) for info in describe_tensors(meta, names))


def _feedable(meta: MetaGraphFile) -> str:
    """What could be fed: placeholders, and what stands for a pipeline."""
    found = find_candidates(meta)
    names = (*found.inputs, *found.pipeline)
    return f", and the graph has {_first_few(meta, names)}" if names else ""


def _fetchable(meta: MetaGraphFile) -> str:
    """What could be fetched, the likeliest as a flag."""
    names = find_candidates(meta).outputs
    if not names:
        return " (--list shows the graph)"
    others = f"; or {', '.join(names[1:_MAX_NAMED])}" if names[1:] else ""
    return f", such as --fetch={names[0]}{others}"


def _first_few(meta: MetaGraphFile, names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    shown = names[:_MAX_NAMED]
    try:
        described = _described(meta, shown)
    except CheckpointError:  # One has an operation that this TensorFlow lacks.
        described = ", ".join(shown)
    return described + (f" and {more} more" if more > 0 else "")
