"""What tools/diff.py does once its flags are read."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from checkpoints.loading.model_parsing import DEFAULT_MAX_BYTES
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.newest import Hold, read_newest
from tools.common.errors import ToolError
from tools.common.output import Record
from tools.comparison.graphs import compare_graphs
from tools.comparison.report import as_record
from tools.comparison.sides import GRAPH, VARIABLES, Side, open_side
from tools.comparison.variables import compare_variables


@dataclass(frozen=True)
class DiffConfig:
    """What is asked for.

    Attributes:
      a: what `open_side` takes.
      b: likewise.
      only: `VARIABLES` or `GRAPH`; None for all that both have.
      tolerance: an absolute difference of values up to this counts as none.
      filter: a regular expression; only variables and nodes in whose name it is found.
      max_meta_bytes: the size of the largest file of a graph that is read.
      time_limit: on reading a graph.
    """

    a: str
    b: str
    only: str | None = None
    tolerance: float = 0.0
    filter: str = ""
    max_meta_bytes: int = DEFAULT_MAX_BYTES
    time_limit: TimeLimit = TimeLimit()  # noqa: RUF009 (it is frozen)


def diff(config: DiffConfig) -> Record:
    """Compares what both have; see `as_record`.

    Raises:
      CheckpointError, ToolError: one of them cannot be read, or they have nothing in common.
    """
    return read_newest([config.a, config.b], functools.partial(_diff, config))


def _diff(config: DiffConfig, hold: Hold) -> Record:
    a, b = (
        open_side(path, flag, config.only, config.max_meta_bytes, config.time_limit, hold)
        for path, flag in ((config.a, "--a"), (config.b, "--b"))
    )
    pattern = re.compile(config.filter)
    variables = graphs = None
    if a.reader is not None and b.reader is not None:
        variables = [*compare_variables(a.reader, b.reader, pattern, config.tolerance)]
    if a.meta is not None and b.meta is not None:
        graphs = compare_graphs(a.meta, b.meta, pattern)
    notes = [*_left_out(a, b, config.only)]
    if variables is None and graphs is None:
        raise ToolError(f"{a.path} and {b.path} have nothing to compare: {'; '.join(notes)}")
    return as_record(config.a, config.b, variables, graphs, notes)


def _left_out(a: Side, b: Side, only: str | None) -> Iterator[str]:
    """Why what one has is not compared."""
    for wanted, one, other in (
        (VARIABLES, a.reader, b.reader),
        (GRAPH, a.meta, b.meta),
    ):
        if only in (None, wanted) and (one is None) != (other is None):
            lacking, having = (a, b) if one is None else (b, a)
            yield f"{wanted}: {lacking.path} has none, {having.path} has"
