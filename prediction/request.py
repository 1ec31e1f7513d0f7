"""What is asked of a model, and the limits on reading it; imports no TensorFlow."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cli.fields import COMMAS, NAMES, REPEATED, Check, ends_in, flag
from cli.terminal import INTRA_OP_THREADS_VARIABLE
from data import SKIP, STOP
from errors import PredictionError

if TYPE_CHECKING:
    from metagraph.safety import TimeLimit

MEGABYTE = 2**20
OUTPUT_SUFFIXES = (".npz", ".json", ".csv")


def assets_by_name(texts: Sequence[str]) -> dict[str, str]:
    """Name -> path, of texts `name=path`; PredictionError where a name is given twice."""
    assets: dict[str, str] = {}
    for name, _, path in (text.partition("=") for text in texts):
        if name in assets:
            raise PredictionError(f"--asset {name} is given twice: {assets[name]}, {path}")
        assets[name] = path
    return assets


def _each_is(pattern: str, message: str) -> Check:
    """Each of a flag's texts is as a pattern says."""
    return Check(lambda texts: all(re.fullmatch(pattern, text) for text in texts), message)


def assets(help_text: str, **options: Any) -> Any:
    """The field of files that lookup tables are filled from, `name=path` each."""
    check = _each_is("(?s)[^=]+=.+", "must be name=path")
    return flag(help_text, (), many=REPEATED, path=True, check=check, **options)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stranger's graph may take; `end_after` is that of a `TimeLimit`."""

    GROUP: ClassVar = "limits"

    max_meta_bytes: int = flag(
        "The size of the largest file of a graph that is read, in MiB.",
        512,
        name="max_meta_mb",
        low=1,
        high=2048,  # Protobuf's own limit.
        convert=lambda size: size * MEGABYTE,
    )
    time_limit: float = flag(
        "Seconds that each of these may take: reading the graph, importing it, and a run of it, "
        "such as one that waits for a queue that nobody fills; 0 for no limit.",
        60.0,
        check=Check(
            lambda seconds: 0 <= seconds < float("inf"),
            "must be a finite number of seconds, 0 or more",
        ),
    )
    memory_limit_mb: int | None = flag(
        "MiB of memory that may be allocated; 0 for no limit. By default what the machine, or its "
        "container, has.",
        None,
        low=0,
    )
    end_after: Callable[[float, str], None] | None = None

    @property
    def limit(self) -> "TimeLimit":
        """The time limit with what ends the process."""
        from metagraph.safety import TimeLimit

        return TimeLimit(self.time_limit, self.end_after)


def trust_graph() -> Any:
    """The field of a request that may let a graph do more than compute."""
    return flag(
        "Run also operations that may do more than compute, such as reading files; by default "
        "they are refused.",
        False,
        group=Limits.GROUP,
    )


_SIZE = r"(?:[0-9]{1,9}|\?)"


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """The values of --shape by name: `x=?,3` is (None, 3), `x=` a scalar."""
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = sizes.split(",") if sizes else []
        shapes[name] = tuple(None if part == "?" else int(part) for part in parts)
    return shapes


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a user says of a graph that does not say it itself, or says otherwise."""

    GROUP: ClassVar = "model"

    shapes: Mapping[str, tuple[int | None, ...]] = flag(
        "The shape of a tensor that is fed and leaves it open: name=?,3 is any number of rows of "
        "three, name= a scalar.",
        (),
        name="shape",
        many=REPEATED,
        check=_each_is(f".+=({_SIZE}(,{_SIZE})*)?", "must be name=sizes, such as x=?,3"),
        convert=parse_shapes,
    )
    use_moving_averages: bool = flag(
        "Of a graph that was saved in training mode, normalise by the moving averages that it "
        "keeps, not by the rows that run at once.",
        False,
    )


def feeds(help_text: str, **options: Any) -> Any:
    """The field of values of tensors."""
    form = r"(?s).*\.npz|[^=]+=.*"
    check = _each_is(form, "must be name=file.npy, name=literal or file.npz")
    return flag(help_text, (), many=REPEATED, path=True, check=check, **options)


def signature() -> Any:
    """The field of a request that names one of several signatures."""
    return flag(
        "The signature whose inputs and outputs are meant, where the file has several; "
        "serving_default, or the only one, unless named here. predict.py --list names them.",
        None,
        group="model",
    )


def tags() -> Any:
    """The field of a request that names one of a SavedModel's graphs."""
    return flag(
        "Of a SavedModel, the tags of the graph that is meant, separated by commas; --tags= is the "
        "one without any. By default the one that serves, or the only one not for training.",
        None,
        group="model",
    )


def meta() -> Any:
    """The field of a model that must be given, --meta or the first argument."""
    return flag(
        "The .meta file of a checkpoint, another of its files or their prefix, or a folder for its "
        "newest checkpoint; a frozen graph (.pb), or the folder of a SavedModel.",
        path=True,
        positional=True,
        group="model",
    )


OWN, AVERAGED = "own", "ema"


@dataclass(frozen=True)
class ModelConfig(Limits, Reading):
    """A model to open, and its limits."""

    GROUP: ClassVar = "model"

    meta: str = meta()
    _: KW_ONLY
    checkpoint: Sequence[str] = flag(
        "The checkpoint to take the variables from, where that is another than the graph's own: "
        "its prefix or any file of it, or a folder for its newest; 'best' for the one with the "
        "best test accuracy in the folder of --meta, as training with --keep_best keeps it. Of "
        "several, each gives the variables that those before it lack.",
        (),
        name="ckpt",
        many=REPEATED,
        path=True,
        check=Check(all, "must not be empty"),
    )
    tags: str | None = tags()
    signature: str | None = signature()
    weights: str = flag(
        "Which values variables have: their own, or ema for those of their moving averages "
        "(w/ExponentialMovingAverage of w), where the checkpoint has some.",
        OWN,
        choices=(OWN, AVERAGED),
    )
    trust_graph: bool = trust_graph()


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ModelConfig):
    """What is to be predicted with a model."""

    GROUP: ClassVar = "output"

    input: Sequence[str] = flag(
        "Rows for the model's input: an image (PNG, JPEG, BMP, WebP, GIF) or several, also as "
        "'photos/*.jpg'; a folder of images or of one subfolder a class, a .npz with X (and Y, the "
        "labels), a .npy, or a .csv of numbers, a row a line; for a tensor of strings also a .txt "
        "or a .tfrecord. There may be any number of rows, also where the graph takes a fixed "
        "number a run. For several inputs, once for each: name=file, of as many rows. uint8 values "
        "are scaled as in training; images are turned as their EXIF says and resized to what the "
        "graph takes, bilinear, if it does not take any size; as the bytes of files, they stay.",
        (),
        many=REPEATED,
        path=True,
        check=_each_is("(?s).*[^=]", "must be a path, or name=path"),
        group="input",
    )
    feed: Sequence[str] = feeds(
        "A tensor to feed: name=file.npy, name=literal (a number, true, false, a JSON list), or a "
        ".npz whose keys are tensor names. One with as many rows as --input goes along with them.",
        group="input",
    )
    batch_size: int | None = flag(
        "Rows at once. By default 256, or fewer so that they have at most 256 MiB; all of them "
        "where a fetched tensor is one value over them, such as a loss.",
        None,
        low=1,
        group="input",
    )
    exact_rows: bool = flag(
        "Give a row the same bytes whatever rows come with it, how many, and in which order: rows "
        "are cut into runs of one size, side by side, the last one filled up. Where the graph "
        "mixes its rows, that is said, and they run as they come.",
        True,
        group="input",
    )
    ignore_exif: bool = flag(
        "Take the pixels of image files as they are stored; by default images are turned as their "
        "EXIF orientation says, as viewers do.",
        False,
        group="input",
    )
    resize: bool = flag(
        "Make uint8 images of .npy and IDX files fit what the graph takes, as all others are.",
        False,
        group="input",
    )
    on_bad_image: str = flag(
        "What an image file that cannot be read does: stop, or be left out, which is said.",
        SKIP,
        choices=(STOP, SKIP),
        group="input",
    )
    asset: Sequence[str] = assets(
        "A file that a lookup table of the graph is filled from: name=path, where the name is that "
        "of the file where the graph was made, or of the tensor that gives it.",
        group="input",
    )
    max_input_mb: int = flag(
        "MiB that one file of --input or --feed may unpack to.", 4096, low=1, group=Limits.GROUP
    )
    fetch: Sequence[str] = flag(
        "Tensors to compute, by name; op/name means op/name:0. Also keys of the signature. By "
        "default the collection 'predict', and what a classifier's report needs.",
        (),
        many=COMMAS,
        check=NAMES,
    )
    list: bool = flag("Only list inputs, outputs, variables, signature and collections.", False)
    top_k: int = flag("Classes of each row that are shown, the likeliest first.", 1, low=1)
    format: str = flag("Of what is printed.", "text", choices=("text", "json"))
    output: str | None = flag(
        "A file for the fetched tensors, each under its name: .npz, .json or .csv.",
        None,
        path=True,
        check=ends_in(*OUTPUT_SUFFIXES, message=f"must end in one of {', '.join(OUTPUT_SUFFIXES)}"),
    )

    @property
    def threads(self) -> int | None:
        """The threads of an operation, for `import_tensorflow`: one where rows are to be exact.

        Rows then run side by side. None leaves the number to the environment.
        """
        has_rows = bool(self.input or not self.feed)
        is_given = INTRA_OP_THREADS_VARIABLE in os.environ
        return 1 if self.exact_rows and has_rows and not is_given else None
