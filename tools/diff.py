"""Compares two checkpoints: variables by name and value, graphs node by node.

  python -m tools.diff model1/my-model-190 model1/my-model-200 --only=graph
  python -m tools.diff model1/my-model-190 model1/my-model-200 --filter=conv./w$ --tolerance=0.1

A and B are each a checkpoint (its prefix or any file of it), a folder for its newest, a frozen
graph (.pb) or the folder of a SavedModel. What both have is compared: of variables those in one
only, changes of shape or dtype, and the largest difference |a - b|, also relative to the larger of
|a| and |b|; of graphs the nodes, functions, signatures and collections that were added, removed or
changed. A NaN is equal to a NaN. Nothing of a graph is run.

The exit code is 0 where there is no difference, and 1 where there is one; it is 1 as well where
something cannot be read, with a line on stderr and none on stdout.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.fields import flag, from_zero
from cli.terminal import postpone_tensorflow
from errors import first_few
from prediction.request import Limits
from tools.command import Printed, Record, name_filter, run_command, show, table

VARIABLES, GRAPH = "variables", "graph"
# What a variable's `status` may be.
ONLY_A, ONLY_B, EQUAL = "only in A", "only in B", "equal"
SHAPE, DTYPE, VALUES = "shape", "dtype", "values"
_STATUSES = {key: f"differ in {key}" for key in (VALUES, SHAPE, DTYPE)}
_STATUSES |= {key: key for key in (ONLY_A, ONLY_B)}
_HEADER = ["variable", "differs in", "largest", "relative", "elements"]
_MAX_LINES = 10  # Of a list.
_MAX_CHANGES = 4  # Of a node.
_MAX_NAMED = 5
_SIDE = (
    "checkpoint (its prefix, a file of it, or a folder for its newest), frozen graph or SavedModel"
)


@dataclass(frozen=True, kw_only=True)
class DiffConfig(Printed, Limits):
    """Two models, and what of them is compared."""

    GROUP: ClassVar = "selection"

    a: str = flag(f"The first {_SIDE}.", path=True, positional=True, group="model")
    b: str = flag(f"The second {_SIDE}.", path=True, positional=True, group="model")
    only: str | None = flag(
        "Compare nothing else; by default all that both have.",
        None,
        choices=(VARIABLES, GRAPH),
    )
    tolerance: float = flag(
        "An absolute difference of values up to this counts as none.", 0.0, check=from_zero()
    )
    filter: str = name_filter(
        "A regular expression: compare only variables and nodes in whose name it is found.", ""
    )


def main(config: DiffConfig) -> int:
    """Compares the two; 0 where nothing differs."""
    postpone_tensorflow()
    from tools.differences import diff

    record = diff(config)
    show(record, as_text, config.format)
    return 1 if record["differ"] else 0


def as_text(record: Record) -> str:
    """What differs; long lists are cut short."""
    lines = [f"A is {record['a']}, B is {record['b']}"]
    lines += [f"not compared, {note}" for note in record["notes"]]
    if record["variables"] is not None:
        lines += _variable_lines(record["variables"])
    if record["graph"] is not None:
        lines += _graph_lines(record["graph"])
    return "\n".join(lines)


def _variable_lines(variables: Sequence[Record]) -> Iterator[str]:
    if not variables:
        yield "variables: none are compared"
        return
    counts = Counter(variable["status"] for variable in variables)
    told = [f"{counts[key]} {text}" for key, text in _STATUSES.items() if counts[key]]
    yield f"variables: {', '.join([f'{counts[EQUAL]} equal', *told])}"
    differing = [variable for variable in variables if variable["status"] != EQUAL]
    if differing:
        rows = [_HEADER, *map(_row, differing[:_MAX_LINES])]
        yield from table(rows, right=(2, 3, 4), indent=2)
    yield from _more(len(differing))
    valued = [variable for variable in variables if variable["values"] is not None]
    if nans := [variable["name"] for variable in valued if variable["values"]["equal_nans"]]:
        yield f"  NaN at the same places in both, taken as equal: {first_few(nans, _MAX_NAMED)}"
    bytewise = [
        f"{variable['name']} (up to {_shown(variable['values']['largest'])})"
        for variable in valued
        if variable["status"] == EQUAL and not variable["values"]["equal_bytes"]
    ]
    if bytewise:
        yield f"  taken as equal, of other bytes: {first_few(bytewise, _MAX_NAMED)}"


def _more(count: int) -> Iterator[str]:
    if count > _MAX_LINES:
        yield f"  and {count - _MAX_LINES} more, which --format=json has"


def _row(variable: Record) -> list[str]:
    values = variable["values"]
    what = variable["status"]
    if what in (SHAPE, DTYPE):
        what = f"{what}: {_kind(variable['a'])} -> {_kind(variable['b'])}"
    elif what in (ONLY_A, ONLY_B):
        what = f"{what}: {_kind(variable['a'] or variable['b'])}"
    if values is None:
        return [variable["name"], what, "", "", ""]
    numbers = [_shown(values["largest"]), _shown(values["relative"])]
    size = math.prod(variable["a"]["shape"])
    return [variable["name"], what, *numbers, f"{values['differing']} of {size}"]


def _kind(spec: Record) -> str:
    return f"{spec['dtype']} {spec['shape']}"


def _shown(number: float | str | None) -> str:
    if isinstance(number, float):
        return f"{number:.6g}"
    return "" if number is None else str(number)


def _graph_lines(graph: Record) -> Iterator[str]:
    if not any(any(found.values()) for found in graph.values()):
        yield "graphs: equal in nodes, functions, signatures and collections"
    for kind, found in graph.items():
        if not any(found.values()):
            continue
        yield f"{kind}: {', '.join(f'{len(told)} {what}' for what, told in found.items())}"
        changed = [
            f"{change['name']}: {first_few(change['changes'], _MAX_CHANGES, '; ')}"
            for change in found["changed"]
        ]
        for sign, texts in (("+", found["added"]), ("-", found["removed"]), ("~", changed)):
            yield from (f"  {sign} {text}" for text in texts[:_MAX_LINES])
            yield from _more(len(texts))


if __name__ == "__main__":
    run_command(main, DiffConfig, __doc__)
