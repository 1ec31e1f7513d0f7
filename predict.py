"""Predicts with any checkpoint, by tensor name.

  python predict.py --meta=model1/my-model-200.meta

restores the graph of the .meta file and the variables that belong to it, and prints the class and
the probability of each row; of a model that is no classifier, the fetched tensors. Rows are fed
with --input, single tensors with --feed; --list shows what there is to feed and to fetch.

  python predict.py --meta=cifar/my-model-1260.meta --input=cifar4/test
  python predict.py --meta=model/my-model-300.meta --fetch=w:0,b:0
  python predict.py --meta=model/my-model-300.meta --feed="x=[0.5, 1.0]" --format=json
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import functools
import os
from collections.abc import Callable

from absl import flags

from cli import flag_types
from cli.flag_types import (
    define_asset,
    define_ignore_exif,
    define_max_input_mb,
    define_max_meta_mb,
    define_time_limit,
    define_trust_graph,
)
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, printable
from errors import CheckpointError, DataError, PredictionError

OUTPUT_SUFFIXES = (".npz", ".json", ".csv")


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flag_types.define_path(
        "meta",
        None,
        "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
        "newest checkpoint; a frozen graph (.pb), or the folder of a SavedModel.",
        values,
    )
    flags.mark_flag_as_required("meta", flag_values=values)
    flag_types.define_path(
        "ckpt",
        None,
        "The checkpoint to take the variables from, where that is another than the graph's own: "
        "its prefix or any file of it, or a folder for its newest; 'best' for the one with the "
        "best test accuracy in the folder of --meta, as training with --keep_best keeps it.",
        values,
    )
    flags.DEFINE_list(
        "fetch",
        [],
        "Tensors to compute, by name; op/name means op/name:0. Also keys of the signature. By "
        "default the collection 'predict', and what a classifier's report needs.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "signature",
        None,
        "The signature whose inputs and outputs are meant, where the file has several; "
        "serving_default, or the only one, unless named here. --list names them.",
        flag_values=values,
    )
    flag_types.define_paths(
        "input",
        "Rows for the model's input: an image (PNG, JPEG), a folder of images or of one subfolder "
        "a class, a .npz with X (and Y, the labels), a .npy, or a .csv of numbers, a row a line; "
        "for a tensor of strings also a .txt or a .tfrecord. There may be any number of them, also "
        "where the graph takes a fixed number of rows a run. For several inputs, once for each: "
        "name=file, of as many rows. uint8 values are scaled as in training; images are "
        "turned as their EXIF says and resized to what the graph takes, bilinear; where it takes "
        "the bytes of files, it gets them as they are.",
        values,
    )
    flag_types.define_paths(
        "feed",
        "A tensor to feed: name=file.npy, name=literal (a number, true, false, a JSON list), or a "
        ".npz whose keys are tensor names. One with as many rows as --input goes along with them.",
        values,
    )
    define_asset(
        values,
        "A file that a lookup table of the graph is filled from: name=path, where the name is that "
        "of the file where the graph was made, or of the tensor that gives it.",
    )
    flags.DEFINE_boolean(
        "list",
        False,
        "Only list inputs, outputs, variables, signature and collections.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Rows a run. By default 256, or fewer so that they have at most 256 MiB; all at once where "
        "a fetched tensor is one value over them, such as a loss.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum("format", "text", ["text", "json"], "Of what is printed.", flag_values=values)
    flag_types.define_path(
        "output",
        None,
        "A file for the fetched tensors, each under its name: .npz, .json or .csv.",
        values,
    )
    define_max_meta_mb(values)
    define_trust_graph(values)
    define_time_limit(values)
    define_max_input_mb(values)
    define_ignore_exif(values)
    _validate(values)


def _validate(values: flags.FlagValues) -> None:
    flags.register_validator(
        "output",
        lambda path: path is None or os.path.splitext(path)[1].lower() in OUTPUT_SUFFIXES,
        message=f"must end in one of {', '.join(OUTPUT_SUFFIXES)}",
        flag_values=values,
    )
    flags.register_validator(
        "input",
        lambda texts: all(text and not text.endswith("=") for text in texts),
        message="must be a path, or name=path",
        flag_values=values,
    )
    flags.register_validator(
        "feed",
        lambda texts: all(text.endswith(".npz") or text.find("=") > 0 for text in texts),
        message="must be name=file.npy, name=literal or file.npz",
        flag_values=values,
    )
    flags.register_validator(
        "fetch",
        all,
        message="must be tensor names, separated by commas",
        flag_values=values,
    )


def main(values: flags.FlagValues, end_after: Callable[[float, str], None] | None = None) -> None:
    """Predicts as the flags say; `end_after` as of a `TimeLimit`."""
    import_tensorflow()
    from prediction.evaluation import predict
    from prediction.request import PredictConfig

    result = predict(
        PredictConfig(
            meta=values.meta,
            checkpoint=values.ckpt,
            signature=values.signature,
            fetch=values.fetch,
            input=values.input,
            feed=values.feed,
            asset=values.asset,
            list=values.list,
            batch_size=values.batch_size,
            format=values.format,
            output=values.output,
            trust_graph=values.trust_graph,
            time_limit=values.time_limit,
            end_after=end_after,
            max_input_mb=values.max_input_mb,
            ignore_exif=values.ignore_exif,
            max_meta_bytes=values.max_meta_mb << 20,
        )
    )
    print(printable(result))


if __name__ == "__main__":
    supervisor = Supervisor("give it fewer rows a run with --batch_size")
    run(
        functools.partial(main, end_after=supervisor.end_after),
        define_flags,
        __doc__,
        user_errors=(CheckpointError, DataError, PredictionError),
        supervisor=supervisor,
    )
