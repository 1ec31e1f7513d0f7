"""Which checkpoint a model's variables are in, and whether it has a value for each of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of
from checkpoints.loading.sub_graph import reachable
from checkpoints.loading.variable_values import (
    VARIABLE_OPS,
    Variable,
    graph_variables,
    unavailable,
)
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import INDEX_SUFFIX

_MAX_SHOWN = 100


class CheckpointState(NamedTuple):
    """What is known of a checkpoint before any value is read.

    Attributes:
      prefix: of its files.
      problems: a line for each variable without a value, or one for all of them.
      unneeded: a line for each further one that no output needs, such as an optimizer's.
    """

    prefix: str
    problems: Sequence[str]
    unneeded: Sequence[str] = ()


def checkpoint_of(meta: MetaGraphFile) -> str | None:
    """The prefix of the checkpoint that a graph's variables are in; None where it has none."""
    return meta.prefix if any(n.op in VARIABLE_OPS for n in meta.nodes.values()) else None


def checkpoint_state(meta: MetaGraphFile, outputs: Sequence[str]) -> CheckpointState | None:
    """Looks into the checkpoint's index, and at the sizes of its files; None without variables.

    Args:
      meta: the graph.
      outputs: the tensors that are its predictions, or may be; none where that is not known, and
        then each variable is needed.
    """
    if checkpoint_of(meta) is None:
        return None
    try:
        verify_checkpoint(meta.prefix, [INDEX_SUFFIX])
        needed, others = _parted(meta, outputs)
        problems = unavailable(meta, needed)
        return CheckpointState(meta.prefix, problems, unavailable(meta, others))
    except CheckpointError as error:
        return CheckpointState(meta.prefix, [str(error)])


def _parted(
    meta: MetaGraphFile, outputs: Sequence[str]
) -> tuple[Sequence[Variable], Sequence[Variable]]:
    """The variables that some outputs need, and the others."""
    variables = graph_variables(meta)
    if not outputs:
        return variables, []
    taken = reachable(meta, map(node_of, outputs))
    needed = [variable for variable in variables if variable.name in taken]
    return needed, [variable for variable in variables if variable.name not in taken]


def as_record(meta: MetaGraphFile, state: CheckpointState | None) -> dict[str, Any]:
    """For JSON: `meta`, `checkpoint` (null without variables), `problems` and `unneeded`, lines."""
    return {
        "meta": meta.path,
        "checkpoint": state and state.prefix,
        "problems": [] if state is None else [*state.problems],
        "unneeded": [] if state is None else [*state.unneeded],
    }


def as_text(state: CheckpointState | None) -> str:
    """Lines for people, for the end of a list; empty without variables."""
    if state is None:
        return ""
    text = f"\ncheckpoint\n  {state.prefix} "
    if state.problems:
        text += "lacks values" + _lines(state.problems)
    else:
        text += "has a value for each variable" + (" that is needed" if state.unneeded else "")
    if state.unneeded:
        text += "\nno value is stored, and no output needs it" + _lines(state.unneeded)
    return text


def _lines(texts: Sequence[str]) -> str:
    return first_few([f"\n  {text}" for text in texts], _MAX_SHOWN, "")
