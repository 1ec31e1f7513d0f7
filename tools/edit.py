"""Writes a new checkpoint from an old one: some variables, under other names, in less space.

  python -m tools.edit model1 --output=weights/cnn --without_slots

keeps what predicts of the newest checkpoint in model1, and leaves what only its optimizer needs. A
graph that calls its layers otherwise restores what has been given its names:

  python -m tools.edit model1 --output=layers/cnn --only='^conv1/' --rename=conv1/=layer1/

With --meta the graph goes along. Its nodes keep their names; its saver, by which a stock client
restores, takes the variables under their new ones.

  python -m tools.edit --meta=model1 --output=half/cnn --without_slots --cast=float16
  python -m tools.edit --meta=model1 --output=named/cnn --rename=fc1/=hidden/

Where it needs less than all variables, the graph is pruned to what predicts: its collection
'predict' and its signature, or what --fetch names. What trains is gone then. --cast rounds what is
stored; in the graph, the variables keep their dtype, and their saver casts what it restores. Before
anything is kept, each variable is read by the old saver and by the new one: they have to agree.

The new checkpoint has no manifest, as no trainer wrote it: whoever continues from it compares names
and shapes. Partitioned variables become whole. What is kept fits into memory, with --meta twice.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.fields import COMMAS, flag, needs
from cli.terminal import postpone_tensorflow
from errors import first_few
from prediction.request import Limits
from tools import command
from tools.command import Record, Rename

_SHOWN, _FILES = 4, 5
NUMBERS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class EditConfig(command.Printed, Limits):
    """Which variables are kept, what they are called, how they are stored, and what predicts."""

    GROUP: ClassVar = "selection"
    CHECKS: ClassVar = (needs("fetch", "meta"),)

    checkpoint: str | None = command.checkpoint(
        "A checkpoint: its prefix or any file of it, or a folder for its newest.",
        None,
        instead="meta",
    )
    meta: str | None = flag(
        "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
        "newest checkpoint, where the graph goes along.",
        None,
        path=True,
        group="model",
    )
    output: str = flag(
        "The prefix of the new checkpoint; its folder is made.", path=True, group="output"
    )
    overwrite: bool = command.overwrite("Replace a checkpoint that is at --output.")
    only: Sequence[str] = command.patterns(
        "Keep only names in which this pattern is found. Several: any of them."
    )
    drop: Sequence[str] = command.patterns(
        "Drop names in which this pattern is found. Several: any of them."
    )
    without_slots: bool = flag(
        "Drop what only an optimizer needs, such as w/Adam and beta1_power.", False
    )
    rename: tuple[Rename, ...] = command.renames(
        "old=new for one name, old/=new/ for all in a scope (old/= takes the scope away, =new/ "
        "puts all into one). Several are applied in their order.",
    )
    cast: str | None = flag(
        "Store floating numbers of any of these kinds in this one, rounded to the nearest.",
        None,
        choices=NUMBERS,
    )
    fetch: Sequence[str] = flag(
        "With --meta, the tensors that the new graph has to compute, by name. Also keys of the "
        "signature. By default the collection 'predict' and the signature's outputs.",
        (),
        many=COMMAS,
    )


def main(config: EditConfig) -> None:
    """Edits what is asked for."""
    postpone_tensorflow()
    from tools.editing import edit

    command.show(edit(config), as_text, config.format)


def as_text(record: Record) -> str:
    """The record for people, a line for each thing that was done."""
    variables, dropped = record["variables"], record["dropped"]
    size = command.format_bytes(sum(variable["bytes"] for variable in variables))
    lines = [
        f"kept {len(variables)} of {len(variables) + len(dropped)} variables ({size}): "
        + first_few([variable["was"] for variable in variables], _SHOWN)
    ]
    if dropped:
        lines.append(f"dropped {len(dropped)}: {first_few(dropped, _SHOWN)}")
    renamed = [f"{v['was']} -> {v['name']}" for v in variables if v["was"] != v["name"]]
    if renamed:
        lines.append(f"renamed {len(renamed)}: {first_few(renamed, _SHOWN)}")
    cast = [v for v in variables if v["dtype"] != v["was_dtype"]]
    if cast:
        names = first_few([f"{v['name']} {v['was_dtype']}" for v in cast], _SHOWN)
        lines.append(f"cast {len(cast)} to {cast[0]['dtype']}: {names}")
    if graph := record["graph"]:
        lines.append(f"graph: {graph['nodes']} of {graph['nodes_before']} nodes")
        lines.append(f"checked: {graph['restored']} variables of the graph are restored as before")
    return "\n".join([*lines, f"wrote {record['output']}: {first_few(record['files'], _FILES)}"])


if __name__ == "__main__":
    command.run_command(main, EditConfig, __doc__)
