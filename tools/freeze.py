"""Writes a graph with its checkpoint as one file of constants, for inference.

  python -m tools.freeze model1 --output=model.pb

keeps what the collection 'predict' and the signature name, under the same names; training switches
and dropout are off. The file is kept only if it computes what the original does, and predict.py
takes it: python predict.py --meta=model.pb --input=photo.jpg. Any outputs, and inner inputs:

  python -m tools.freeze model1 --outputs=fc1/add --inputs=conv2/MaxPool2d --output=top.pb

As tf.import_graph_def(graph_def, name='imported') would have it, every node in a scope:

  python -m tools.freeze model1 --scope=imported --output=imported.pb
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from absl import flags

from cli import flag_types
from cli.flag_types import define_max_meta_mb, define_time_limit, define_trust_graph
from cli.terminal import import_tensorflow
from prediction.request import ModelConfig
from tools.command import (
    OTHER_CKPT_HELP,
    EndAfter,
    define_ckpt,
    define_format,
    define_meta,
    define_overwrite,
    define_part,
    run_command,
    show,
)

POSITIONAL: tuple[str, ...] = ("meta",)

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True)
class PartConfig(ModelConfig):
    """The part of a model that is kept, and where it goes.

    Attributes:
      output: what to write.
      outputs: tensors, or keys of the signature; none for the collection `predict` and the
        signature's outputs.
      inputs: tensors, or keys of the signature, at which the graph is cut, beside its placeholders.
      asset: files that lookup tables are filled from, as `load_inference_graph` takes them.
      overwrite: replace the file if there is one.
    """

    output: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    asset: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False


@dataclass(frozen=True)
class FreezeConfig(PartConfig):
    """What tools.freeze is asked for.

    Attributes:
      scope: what all names of the result begin with, without the last `/`; empty for none.
    """

    scope: str = ""


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_meta(values)
    define_ckpt(values, OTHER_CKPT_HELP)
    flag_types.define_path("output", None, "The file to write, such as model.pb.", values)
    flags.mark_flag_as_required("output", flag_values=values)
    define_overwrite(values)
    define_part(values)
    flags.DEFINE_string(
        "scope",
        "",
        "What all names in the file are to begin with: with --scope=imported, y is imported/y.",
        flag_values=values,
    )
    define_format(values)
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values)
    _validate(values)


def _validate(values: flags.FlagValues) -> None:
    flags.register_validator(
        "output",
        lambda path: path is None or path.endswith(".pb"),
        message="must end in .pb",
        flag_values=values,
    )
    flags.register_validator(
        "scope",
        lambda scope: not scope or _SCOPE.fullmatch(scope) is not None,
        message="must be a name that TensorFlow takes for a scope, such as imported or a/b",
        flag_values=values,
    )


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Freezes as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from prediction.plan import assets_by_name
    from tools import freezing

    frozen = freezing.freeze_to_file(
        FreezeConfig(
            meta=values.meta,
            output=values.output,
            checkpoint=values.ckpt,
            outputs=tuple(values.outputs),
            inputs=tuple(values.inputs),
            signature=values.signature,
            asset=assets_by_name(values.asset),
            scope=values.scope,
            overwrite=values.overwrite,
            trust_graph=values.trust_graph,
            time_limit=values.time_limit,
            end_after=end_after,
            max_meta_bytes=values.max_meta_mb << 20,
        )
    )
    show(freezing.as_record(frozen), lambda _: freezing.as_text(frozen), values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
