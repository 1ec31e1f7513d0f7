"""What an error line offers: tensors that could be fed or fetched in place of what was asked."""

from collections.abc import Sequence

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.inference_graph import describe_tensors
from checkpoints.loading.meta_graph_file import MetaGraphFile
from prediction.candidates import find_candidates
from prediction.model import Model

_MAX_NAMED = 5


def described(meta: MetaGraphFile, names: Sequence[str]) -> str:
    """Tensors with their types; without, where one has an operation that this TensorFlow lacks."""
    try:
        infos = map(str, describe_tensors(meta, names[:_MAX_NAMED]))
        return first_few([*infos, *names[_MAX_NAMED:]], _MAX_NAMED)
    except CheckpointError:
        return first_few(names, _MAX_NAMED)


def feedable(meta: MetaGraphFile, model: Model, fetches: Sequence[str]) -> str:
    """What could be fed for `fetches`, as the end of a line; empty where there is nothing."""
    found = find_candidates(meta, [*model.inputs.values()], fetches)
    names = (*found.inputs, *found.pipeline)
    return f", and the graph has {described(meta, names)}" if names else ""


def fetchable(meta: MetaGraphFile, model: Model, flag: str = "--fetch") -> str:
    """What could be fetched, the likeliest as a flag, as the end of a line."""
    if model.signatures and not model.signature.name:
        return f", or a signature with --signature: {first_few(model.signatures, _MAX_NAMED)}"
    names = find_candidates(meta).outputs
    if not names:
        return " (--list shows the graph)"
    others = f"; or {', '.join(names[1:_MAX_NAMED])}" if names[1:] else ""
    return f", such as {flag}={names[0]}{others}"
