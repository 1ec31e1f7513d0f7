"""Writes a graph with its checkpoint as one file of constants, for inference.

  python -m tools.freeze model1 --output=model.pb

keeps what the collection 'predict' and the signature name, under the same names; training switches
and dropout are off. The file is kept only if it computes what the original does, and predict.py
takes it: python predict.py --meta=model.pb --input=photo.jpg. Any outputs, and inner inputs:

  python -m tools.freeze model1 --outputs=fc1/add --inputs=conv2/MaxPool2d --output=top.pb
"""

from absl import flags

from cli import flag_types
from cli.model_flags import define_max_meta_mb, define_time_limit, define_trust_graph
from cli.tensorflow_startup import import_tensorflow
from tools.common.command import EndAfter, run_command
from tools.common.command_flags import define_ckpt, define_format, define_meta
from tools.common.output import show

POSITIONAL: tuple[str, ...] = ("meta",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines this command's flags in `values`."""
    define_meta(values)
    define_ckpt(
        values,
        "The checkpoint to take the variables from, where that is another than the graph's own; "
        "'best' for the one with the best test accuracy.",
    )
    flag_types.define_path("output", None, "The file to write, such as model.pb.", values)
    flags.mark_flag_as_required("output", flag_values=values)
    flags.DEFINE_boolean(
        "overwrite", False, "Replace the file if there is one.", flag_values=values
    )
    flags.DEFINE_list(
        "outputs",
        [],
        "What the file is to compute: tensors by name, or keys of the signature. By default the "
        "collection 'predict' and the signature's outputs.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "inputs",
        [],
        "Tensors at which the graph is cut: they become placeholders. By default it has the "
        "signature's inputs, its own placeholders, and what comes out of queues and iterators.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "signature",
        None,
        "The signature to keep, where there are several; serving_default, or the only one, unless "
        "named here.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "asset",
        [],
        "A file that a lookup table is filled from: name=path, as predict.py takes it. The file "
        "written holds its content.",
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
    for name in ("outputs", "inputs"):
        flags.register_validator(
            name,
            all,
            message="must be tensor names, separated by commas",
            flag_values=values,
        )
    flags.register_validator(
        "asset",
        lambda texts: all(name and path for name, _, path in (t.partition("=") for t in texts)),
        message="must be name=path",
        flag_values=values,
    )


def main(values: flags.FlagValues, end_after: EndAfter | None = None) -> None:
    """Freezes as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from tools.freezing import command

    frozen = command.freeze_to_file(
        command.FreezeConfig(
            meta=values.meta,
            output=values.output,
            checkpoint=values.ckpt,
            outputs=tuple(values.outputs),
            inputs=tuple(values.inputs),
            signature=values.signature,
            asset=dict(text.split("=", 1) for text in values.asset),
            overwrite=values.overwrite,
            trust_graph=values.trust_graph,
            time_limit=values.time_limit,
            end_after=end_after,
            max_meta_bytes=values.max_meta_mb << 20,
        )
    )
    show(command.as_record(frozen), lambda _: command.as_text(frozen), values.format)


if __name__ == "__main__":
    run_command(main, define_flags, __doc__, POSITIONAL)
