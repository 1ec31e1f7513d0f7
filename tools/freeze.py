"""Writes a graph with its checkpoint as one file of constants, for inference.

  python -m tools.freeze model1 --output=model.pb

keeps what the collection 'predict' and the signature name, under the same names; training switches
and dropout are off. The file is kept only if it computes what the original does, and predict.py
takes it: python predict.py model.pb --input=photo.jpg. Any outputs, and inner inputs:

  python -m tools.freeze model1 --fetch=fc1/add --inputs=conv2/MaxPool2d --output=top.pb

As tf.import_graph_def(graph_def, name='imported') would have it, every node in a scope:

  python -m tools.freeze model1 --scope=imported --output=imported.pb
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from cli.fields import COMMAS, NAMES, Check, flag
from cli.terminal import import_tensorflow
from prediction.request import ModelConfig, assets, assets_by_name, feeds
from tools.command import Printed, overwrite, run_command, show

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True)
class PartConfig(ModelConfig, Printed):
    """The part of a model that is kept, and where it goes."""

    GROUP: ClassVar = "selection"

    output: str = flag("The file to write.", path=True, group="output")
    _: KW_ONLY
    outputs: tuple[str, ...] = flag(
        "The tensors that the result is to compute, by name or key of the signature. By default "
        "the collection 'predict' and the signature's outputs.",
        (),
        name="fetch",
        alias="outputs",
        many=COMMAS,
        check=NAMES,
    )
    inputs: tuple[str, ...] = flag(
        "Tensors at which the graph is cut, by name or key of the signature: they become "
        "placeholders. By default it has the signature's inputs, its own placeholders, and what "
        "comes out of queues, iterators and parsers of tf.Examples.",
        (),
        many=COMMAS,
        check=NAMES,
    )
    feed: Sequence[str] = feeds(
        "Values to compare the result with the original on, for inputs for which made-up ones will "
        "not do: name=file.npy, name=literal, or a .npz whose keys are tensor names."
    )
    asset: Mapping[str, str] = assets(
        "A file that a lookup table is filled from: name=path, as predict.py takes it. The result "
        "holds its content.",
        convert=assets_by_name,
    )
    overwrite: bool = overwrite()


@dataclass(frozen=True)
class FreezeConfig(PartConfig):
    """What is to be frozen, and under which names."""

    output: str = flag(
        "The file to write, such as model.pb.",
        path=True,
        check=Check(lambda path: path.endswith(".pb"), "must end in .pb"),
        group="output",
    )
    _: KW_ONLY
    scope: str = flag(
        "What all names in the file are to begin with: with --scope=imported, y is imported/y.",
        "",
        check=Check(
            lambda scope: not scope or _SCOPE.fullmatch(scope) is not None,
            "must be a name that TensorFlow takes for a scope, such as imported or a/b",
        ),
    )


def main(config: FreezeConfig) -> None:
    """Freezes what is asked for."""
    import_tensorflow()
    from tools.freezing import as_text, freeze_to_file

    show(freeze_to_file(config), as_text, config.format)


if __name__ == "__main__":
    run_command(main, FreezeConfig, __doc__)
