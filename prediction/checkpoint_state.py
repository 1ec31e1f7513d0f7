"""Which checkpoint a model's variables are in, and whether it has a value for each of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.variable_values import VARIABLE_OPS, graph_variables, unavailable
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import INDEX_SUFFIX

_MAX_SHOWN = 100


class CheckpointState(NamedTuple):
    """What is known of a checkpoint before any value is read.

    Attributes:
      prefix: of its files.
      problems: a line for each variable without a value, or one for all of them.
    """

    prefix: str
    problems: Sequence[str]


def checkpoint_of(meta: MetaGraphFile) -> str | None:
    """The prefix of the checkpoint that a graph's variables are in; None where it has none."""
    return meta.prefix if any(n.op in VARIABLE_OPS for n in meta.nodes.values()) else None


def checkpoint_state(meta: MetaGraphFile) -> CheckpointState | None:
    """Looks into the checkpoint's index, and at the sizes of its files; None without variables."""
    if checkpoint_of(meta) is None:
        return None
    try:
        verify_checkpoint(meta.prefix, [INDEX_SUFFIX])
        return CheckpointState(meta.prefix, unavailable(meta, graph_variables(meta)))
    except CheckpointError as error:
        return CheckpointState(meta.prefix, [str(error)])


def as_record(meta: MetaGraphFile, state: CheckpointState | None) -> dict[str, Any]:
    """For JSON: `meta`, `checkpoint` (null without variables), and `problems`, a list of lines."""
    problems = [] if state is None else [*state.problems]
    return {"meta": meta.path, "checkpoint": state and state.prefix, "problems": problems}


def as_text(state: CheckpointState | None) -> str:
    """Lines for people, for the end of a list; empty without variables."""
    if state is None:
        return ""
    if not state.problems:
        return f"\ncheckpoint\n  {state.prefix} has a value for each variable"
    lines = [f"\n  {line}" for line in state.problems]
    return f"\ncheckpoint\n  {state.prefix} lacks values" + first_few(lines, _MAX_SHOWN, "")
