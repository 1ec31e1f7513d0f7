"""What a checkpoint holds beside what is taken from it, and which of that speaks of a mistake.

Most of it is as it should be: the variables of later layers and of other branches, an optimizer's
slots and counters, moving averages of a variable beside it. But a graph and a checkpoint that do
not belong together are told by a tensor in a scope that is taken, such as `conv1/gamma` beside
`conv1/w`, that the whole graph has no variable for: what was trained computed with it, and what is
imported does not.
"""

from collections.abc import Collection, Iterable

from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.saver_mapping import OBJECT_SUFFIX, checkpoint_keys
from checkpoints.loading.slots import slot_names
from checkpoints.loading.variable_values import VARIABLE_OPS
from finetuning.chosen_variables import is_in


def without_place(meta: MetaGraphFile, taken: Collection[str], held: Collection[str]) -> list[str]:
    """The tensors of a checkpoint that should have a place in what is taken, and have none.

    They are in the scope of a variable that is taken, the graph has no variable for them, they are
    no optimizer's, and none that goes with another one, as `w/ExponentialMovingAverage` does with
    `w`. What is in no scope at all is not told from the rest of the checkpoint.

    Args:
      meta: the file of the graph.
      taken: variables of it.
      held: the keys of its checkpoint.

    Returns:
      Some of `held`, sorted.

    Raises:
      CheckpointError: the graph is damaged.
    """
    variables = [name for name, node in meta.nodes.items() if node.op in VARIABLE_OPS]
    places = checkpoint_keys(meta, variables, held)
    unknown = {*held} - {place.key for place in places.values()}
    scopes = tuple({*_scopes(places[name].key for name in taken)})
    unknown = {key for key in unknown if is_in(key, scopes) and not _goes_with(key, held)}
    return sorted(unknown - slot_names(held, meta)) if unknown else []


def _scopes(keys: Iterable[str]) -> Iterable[str]:
    """The scopes that tensors are in, those of an object-based checkpoint without its suffix."""
    for key in keys:
        scope = key.removesuffix(OBJECT_SUFFIX).rpartition("/")[0]
        if scope:
            yield scope


def _goes_with(key: str, held: Collection[str]) -> bool:
    """Whether a tensor is named after another one that the checkpoint holds."""
    parts = key.removesuffix(OBJECT_SUFFIX).split("/")
    stems = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return any(stem in held or stem + OBJECT_SUFFIX in held for stem in stems)
