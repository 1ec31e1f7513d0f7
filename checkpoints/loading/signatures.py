"""The signatures of a graph: named inputs and outputs, of a SavedModel or of a session bundle."""

from collections.abc import Mapping
from typing import NamedTuple

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.nearest_names import nearest_names
from checkpoints.loading.session_bundle import bundle_signatures
from checkpoints.meta_graph import SIGNATURE

_OF_LOADERS = "__saved_model_"  # `__saved_model_init_op` and so on name no tensors to predict with.
_MAX_NAMED = 10


class Signature(NamedTuple):
    """One signature; keys are sorted, as protobuf maps have no order of their own.

    Attributes:
      name: of the signature; empty for the one of a file that has none.
      inputs: argument name -> full tensor name.
      outputs: result name -> full tensor name.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


NO_SIGNATURE = Signature("", {}, {})


def read_signatures(meta: MetaGraphFile) -> dict[str, Signature]:
    """All of them by name, sorted; what names no tensor of the graph is left out of them."""
    found = dict(bundle_signatures(meta, SIGNATURE))
    named = {
        name: Signature(name, _tensors(meta, bindings.inputs), _tensors(meta, bindings.outputs))
        for name, bindings in found.items()
    }
    for name, proto in meta.proto.signature_def.items():
        inputs = {key: info.name for key, info in proto.inputs.items()}
        outputs = {key: info.name for key, info in proto.outputs.items()}
        if not name.startswith(_OF_LOADERS):
            named[name] = Signature(name, _tensors(meta, inputs), _tensors(meta, outputs))
    return dict(sorted(named.items()))


def _tensors(meta: MetaGraphFile, names: Mapping[str, str]) -> dict[str, str]:
    found = {key: meta.find_tensor(name) for key, name in sorted(names.items())}
    return {key: name for key, name in found.items() if name is not None}


def choose_signature(
    meta: MetaGraphFile, signatures: Mapping[str, Signature], asked: str | None
) -> Signature:
    """The signature to use: the one asked for, or `serving_default`, or the only one.

    Where none is asked for and there is no such one, it is NO_SIGNATURE.

    Args:
      meta: the file.
      signatures: its own.
      asked: a name, None for none.

    Raises:
      CheckpointError: there is no signature of the name that is asked for.
    """
    if asked is None:
        if SIGNATURE in signatures:
            return signatures[SIGNATURE]
        return next(iter(signatures.values())) if len(signatures) == 1 else NO_SIGNATURE
    if asked in signatures:
        return signatures[asked]
    if not signatures:
        raise CheckpointError(f"{meta.path} has no signature {asked!r}, and no other")
    names = nearest_names(asked, [*signatures]) or [*signatures]
    raise CheckpointError(
        f"{meta.path} has no signature {asked!r}; there is {first_few(names, _MAX_NAMED)}"
    )
