"""What a run is asked for, whichever model it trains: its flags, and the config they become."""

import functools
import math
import os
import re
from dataclasses import MISSING, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar, TextIO

from cli.fields import COMMAS, POSITIVE, REPEATED, Check, Together, flag, from_zero, needs, nested
from cli.terminal import INTRA_OP_THREADS_VARIABLE, MOST_THREADS
from data import DEFAULT_MEMORY_MB, RAMP, SHAPES, SKIP, STOP
from errors import TrainingError
from training.workers import present_place

CONSTANT, COSINE = "constant", "cosine"
FLOAT32, BFLOAT16 = "float32", "bf16"
_LOG_EVERY_STEPS = 10  # unless an epoch is longer
_LARGEST_SEED = 2**32 - 1
MOST_STEPS = 10**12
_MOST_EPOCHS = 10**6
_MOST_SHARDS = 1024
_SECONDS = Check(lambda seconds: 0 < seconds <= 10**6, "must be seconds above 0", " Above 0.")


_of_checkpoints = functools.partial(flag, group="checkpoints")
_of_workers = functools.partial(flag, group="workers")
_STEPS = re.compile(r"(\d{1,12}):(\d{1,13})", re.ASCII)
ALL_STEPS = (0, 0)  # What --replay=all stands for.


def _range(text: str) -> tuple[int, int]:
    """The two steps of `170:180`; ValueError unless they rise."""
    found = _STEPS.fullmatch(text)
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError("must be two steps, the lower one first, such as 170:180")
    return int(found[1]), int(found[2])


def _replay(text: str) -> tuple[int, int]:
    return ALL_STEPS if text == "all" else _range(text)


def _is_rule(rule: str) -> bool:
    """Whether both sides are scopes (or empty, for all there is), or both are names."""
    old, equals, new = rule.partition("=")
    are_scopes = [not side or side.endswith("/") for side in (old, new)]
    return bool(equals) and "=" not in new and are_scopes[0] == are_scopes[1]


def _is_pattern(text: str) -> bool:
    try:
        return re.compile(text).pattern != ""
    except re.error:
        return False


def exclude(help_text: str) -> Any:
    """The field of variables that are not restored; None for none."""
    return flag(
        f"{help_text}; a regular expression that matches their whole names.",
        None,
        check=Check(_is_pattern, "must be a regular expression"),
    )


@dataclass(frozen=True)
class InitFrom:
    """Whose values a run begins with.

    A rule (old, new) of `assign` gives the scope `old` of the checkpoint, or the variable, to `new`
    here. Without a rule everything is given to its own name, as by a rule of two empty texts.
    """

    GROUP: ClassVar = "run"
    CHECKS: ClassVar = (
        Together(
            ("init_from", "assign", "exclude"),
            lambda path, assign, exclude: path or not (assign or exclude),
            "--assign and --exclude need --init_from",
        ),
    )

    path: str = flag(
        "A checkpoint's prefix, or a folder for its newest: the run begins with its values, by "
        "name, in place of initial ones. All variables but an optimizer's have to be in both.",
        name="init_from",
        path=True,
    )
    assign: tuple[tuple[str, str], ...] = flag(
        "With --init_from: old_scope/=new_scope/ takes only what is in old_scope/ there, for "
        "new_scope/ here; without slashes it names one variable.",
        (),
        many=REPEATED,
        check=Check(
            lambda rules: all(map(_is_rule, rules)),
            "must be old_scope/=new_scope/ or old_name=new_name",
        ),
        convert=lambda texts: tuple(text.partition("=")[::2] for text in texts),
    )
    exclude: str | None = exclude("With --init_from: variables that stay new")


@dataclass(frozen=True)
class RunConfig:
    """The part of a trainer's config that the training loop reads."""

    GROUP: ClassVar = "run"
    CHECKS: ClassVar = (
        Together(
            ("shards", "workers"),
            lambda shards, workers: shards % workers == 0,
            "--workers must divide --shards, such as --shards=4 --workers=2",
        ),
        Together(
            ("replay", "workers", "start_anew", "allow_config_change", "profile_steps"),
            lambda replay, workers, *others: not replay or (workers == 1 and not any(others)),
            "--replay computes in one process and changes nothing: it goes without --workers, "
            "--start_anew, --allow_config_change and --profile_steps",
        ),
        needs("stop_after", "keep_best"),
    )

    ckpt_dir: str = flag(
        "Folder of the run: checkpoints, metrics, events, and its flags in run.flags, with which "
        "--flagfile repeats it.",
        path=True,
    )
    seed: int = flag(
        "Initial values, batches and dropout masks follow from it.", 0, low=0, high=_LARGEST_SEED
    )
    save_every_steps: int | None = _of_checkpoints(
        "Steps between two checkpoints; the last step is always saved.", 10, low=1
    )
    max_to_keep: int = _of_checkpoints("Newest checkpoints that stay; 0 keeps all.", 4, low=0)
    keep_checkpoint_every_n_hours: float = _of_checkpoints(
        "Beside the newest, keep the first checkpoint of each span of so many hours; 0 keeps none.",
        0.0,
        check=from_zero(),
    )
    log_every_steps: int | None = flag(
        "Steps between two log lines, each with the accuracy on the test split where there is one; "
        "by default 10, or an epoch where that is longer.",
        None,
        low=1,
    )
    allow_config_change: bool = flag(
        "Continue a run although its seed, data, batch size, learning rate, schedule or "
        "augmentation has changed.",
        False,
        once=True,
    )
    keep_best: bool = _of_checkpoints(
        "Beside the newest, keep the checkpoint with the best accuracy on the test split, which is "
        "then measured at each save.",
        False,
    )
    stop_after: int | None = _of_checkpoints(
        "With --keep_best: the run ends early once so many saves in a row have brought no better "
        "accuracy on the test split.",
        None,
        low=1,
    )
    init_from: InitFrom | None = nested(InitFrom, optional=True)
    start_anew: bool = flag(
        "Begin at step 0 in a folder whose checkpoints are gone, although its state file or its "
        "metrics tell of some. Where there are checkpoints it changes nothing.",
        False,
        once=True,
    )
    replay: tuple[int, int] | None = flag(
        "Audit the folder and train nothing: with 170:180 the steps from checkpoint 170 to 180 are "
        "computed again, in memory, and what they give is compared with what the folder holds, "
        "byte for byte. 0:170 begins with the seed; 'all' takes the steps from the oldest "
        "checkpoint to the newest. Exit code 0 if all is equal, else 1.",
        None,
        check=Check(_replay),
        convert=_replay,
        once=True,
    )
    histograms_every_steps: int | None = flag(
        "Steps between two histograms of each variable in TensorBoard; by default none.",
        None,
        low=1,
    )
    profile_steps: tuple[int, int] | None = flag(
        "Steps that TensorFlow's profiler watches, such as 100:110 for the ten after step 100; "
        "TensorBoard shows what it writes into logs/.",
        None,
        check=Check(_range),
        convert=_range,
        once=True,
    )
    intra_op_threads: int | None = flag(
        "Threads among which an operation may split its work, which changes the last bits of its "
        f"result; by default {INTRA_OP_THREADS_VARIABLE}, else 1 for steps so small that splitting "
        "them costs more than it gains, else one a processor. With --shards, the shards that are "
        "computed at once, which changes no bits; by default processors / --workers.",
        None,
        low=1,
        high=MOST_THREADS,
    )
    shards: int = _of_workers(
        "Equal parts of each batch, a power of two: their gradients are computed apart and added "
        "in a fixed order. From 2 on, the bytes of a run are the same on any number of workers and "
        "threads.",
        1,
        low=1,
        high=_MOST_SHARDS,
        check=Check(lambda count: count & (count - 1) == 0, "must be a power of two"),
    )
    workers: int = _of_workers(
        "Processes on this machine that share the shards; this command starts and watches them. "
        "Workers on several machines are told of each other by the environment's TF_CONFIG.",
        1,
        low=1,
        high=_MOST_SHARDS,
        once=True,
    )
    start_timeout: float = _of_workers(
        "Seconds that a worker waits for the others at the start.",
        300.0,
        check=_SECONDS,
        once=True,
    )
    worker_timeout: float = _of_workers(
        "Seconds without a word from the other workers after which those that are stopped or out "
        "of reach end the run; ten times as many end it in any case.",
        60.0,
        check=_SECONDS,
        once=True,
    )

    precision: str = flag(
        "Of convolutions and matrix products: bf16 rounds what they take and give to bfloat16, "
        "which is faster on processors that have instructions for it. Variables stay float32.",
        FLOAT32,
        choices=(FLOAT32, BFLOAT16),
    )
    flags: str = ""  # Of the run, as `CommandLine.as_file` has them.
    # Where progress is shown; None for stderr.
    terminal: TextIO | None = field(default=None, compare=False, repr=False)

    @property
    def bfloat16(self) -> bool:
        """Whether convolutions and matrix products are rounded."""
        return self.precision == BFLOAT16

    def threads(self, *, small_steps: bool) -> int | None:
        """The threads for `import_tensorflow`; None leaves them to the environment."""
        if self.shards > 1:
            return 1
        if self.intra_op_threads is None and small_steps:
            return None if INTRA_OP_THREADS_VARIABLE in os.environ else 1
        return self.intra_op_threads

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that this worker computes with; all of them where there is one shard.

        TrainingError where the shards are not all of one size.
        """
        own = present_place().shards(self.shards)
        if self.shards == 1:
            return slice(None)
        size, rest = divmod(batch_size, self.shards)
        if rest or not size:
            raise TrainingError(
                f"--shards={self.shards} does not divide a batch of {batch_size}: give a "
                f"--batch_size that is a multiple of {self.shards}"
            )
        return slice(own.start * size, own.stop * size)


def train_steps(default: int | None, by_default: str = "") -> Any:
    """The field of the step that a run ends at; `by_default` says what no number stands for."""
    return flag(
        f"Step the run ends at, counted from its very start{by_default}.",
        default,
        low=1,
        high=MOST_STEPS,
        group="training",
    )


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run is whose epochs have many steps."""

    GROUP: ClassVar = "training"
    CHECKS: ClassVar = (
        Together(
            ("train_steps", "epochs"),
            lambda steps, epochs: steps is None or epochs is None,
            "give --train_steps or --epochs, not both",
        ),
    )

    train_steps: int | None = train_steps(None, "; 200 by default")
    epochs: float | None = flag(
        "Passes over the training images the run ends after, above 0 and up to a million; in place "
        "of --train_steps.",
        None,
        check=Check(
            lambda value: 0 < value <= _MOST_EPOCHS,
            f"must be a number above 0 and up to {_MOST_EPOCHS:,}",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What a training adds to the plain one; `models.blocks` has the formulas."""

    GROUP: ClassVar = "training"

    weight_decay: float = flag(
        "In each step, weights (not biases) lose this share of themselves, times the learning "
        "rate, apart from the optimizer's own step, as AdamW has it.",
        0.0,
        check=from_zero(below=1000.0),
    )
    clip_norm: float | None = flag(
        "Gradients whose global norm is greater are scaled down to it.", None, check=POSITIVE
    )
    label_smoothing: float = flag(
        "This share of each label is spread evenly over all classes.",
        0.0,
        check=from_zero(below=1.0),
    )
    class_weights: str | None = flag(
        "How much an example counts in the loss: 'balanced' gives all classes the same part of it, "
        "however many examples they have.",
        None,
        choices=("balanced",),
    )
    ema_decay: float = flag(
        "Also keep moving averages of what is trained (w/ExponentialMovingAverage of w), such as "
        "with 0.999, lower in the first steps; the test accuracy is that of the averages, with "
        "which predict.py and the tools work given --weights=ema.",
        0.0,
        check=from_zero(below=1.0),
    )

    def added(self) -> dict[str, Any]:
        """What is asked for, by the name of its flag; it is a part of the run's identity."""
        given = {field.name: getattr(self, field.name) for field in fields(Additions)}
        return {name: value for name, value in given.items() if value}


def data(default: Any = MISSING) -> Any:
    """The field of the images; they have to be named where there is no default."""
    return flag(
        f"Images to train on: '{SHAPES}', drawn here; 'cifar10', 'mnist' or 'fashion_mnist', "
        f"downloaded once; '{RAMP}', the tutorials' ten, from which nothing can be learnt; an "
        ".npz with X [N,32,32,3] and Y [N]; an .npy of any size, images.npy, with the labels in "
        "images.labels.npy; or a folder with one subfolder a class, or with train/ and test/ of "
        "that kind.",
        default,
        path=True,
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images are trained on, and how they are read."""

    GROUP: ClassVar = "data"

    data: str = data()
    classes: tuple[str, ...] = flag(
        "Classes to train on, such as airplane,ship: in the order of their labels, by name, or by "
        "number where they have no names. All by default.",
        (),
        many=COMMAS,
    )
    validation_fraction: float = flag(
        "Share of the images held out as the test split, where --data has no test/.",
        0.0,
        check=from_zero(below=1.0),
    )
    data_memory_mb: int = flag(
        "Images of a folder or an .npy that take no more, decoded, are read into memory at the "
        "start. Of more, an .npy is read as it is needed, and so are files, of which as many stay "
        "in memory. It changes no numbers.",
        DEFAULT_MEMORY_MB,
        low=0,
    )
    on_bad_image: str = flag(
        "What an image of a folder or an .npy that cannot be read does: stop the run, or be "
        "skipped, with the next one of the epoch in its place.",
        STOP,
        choices=(STOP, SKIP),
    )
    ignore_exif: bool = flag(
        "Take the pixels of image files as they are stored; by default images are turned as their "
        "EXIF orientation says, as viewers do.",
        False,
    )


def last_step(
    train_steps: int | None, epochs: float | None, default: int, num_examples: int, batch_size: int
) -> int:
    """The step a run ends at: as asked for, else `default`.

    The last batch of an epoch of `num_examples` may reach into the next one.
    """
    if train_steps is not None:
        return train_steps
    if epochs is not None:
        # As it was written: 0.07 * 100 is above 7 in floats.
        return math.ceil(Fraction(str(epochs)) * num_examples / batch_size)
    return default


def log_interval(log_every_steps: int | None, num_examples: int, batch_size: int) -> int:
    """The steps between two log lines: as asked for, else 10, or an epoch where that is longer."""
    if log_every_steps is not None:
        return log_every_steps
    return max(_LOG_EVERY_STEPS, num_examples // batch_size)
