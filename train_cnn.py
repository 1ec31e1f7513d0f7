"""Trains a small convolutional network on 32x32 images.

  python train_cnn.py --ckpt_dir=model1

trains 200 steps on a built-in ramp of ten images in four classes and leaves the checkpoints
model1/my-model-170 to model1/my-model-200. On real images, one folder a class:

  python train_cnn.py --ckpt_dir=cifar --data=cifar4 --epochs=20 --batch_size=128

Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from absl import flags

from cli import flag_types
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from data.options import DEFAULT_MEMORY_MB, RAMP, STOP
from errors import CheckpointError, DataError, TrainingError
from training.config import (
    CONSTANT,
    COSINE,
    RunConfig,
    config_of,
    define_data_flags,
    define_keep_best_flag,
    define_length_flags,
    define_run_flags,
    define_schedule_flags,
    intra_op_threads,
    last_step,
    log_interval,
)

if TYPE_CHECKING:
    from data.batches import TrainingBatches
    from data.image_data import ImageData
    from data.source import Array
    from models.blocks import ModelGraph, Schedule
    from training.loop import Outcome
    from training.task import Task

DEFAULT_STEPS = 200
_SMALL_BATCH = 32  # images; below it one thread trains faster than two (python -m benchmarks.speed)
_LEARNING_RATES = {CONSTANT: 1e-3, COSINE: 4e-3}  # by default; the README says how they were found
_COSINE_WARMUP_STEPS = 500  # by default, in a run of twice as many or more
_TEST_BATCH_SIZE = 250  # images at once: their activations take 40 MB


@dataclass(frozen=True)
class CnnConfig:
    """What a run of this script is asked for; each field is the flag of its name."""

    run: RunConfig
    data: str
    validation_fraction: float
    train_steps: int | None
    epochs: float | None
    batch_size: int
    learning_rate: float
    schedule: str = CONSTANT
    warmup_steps: int | None = None
    augment: bool = False
    classes: tuple[str, ...] = ()
    data_memory_mb: int = DEFAULT_MEMORY_MB
    on_bad_image: str = STOP
    ignore_exif: bool = False


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    define_run_flags(values, ckpt_dir="model1")
    define_keep_best_flag(values)
    define_length_flags(values, DEFAULT_STEPS, epochs=True)
    define_data_flags(values, default=RAMP)
    flags.DEFINE_integer("batch_size", 10, "Images a step.", lower_bound=1, flag_values=values)
    flag_types.define_positive_float(
        "learning_rate",
        None,
        "Learning rate of Adam, the greatest where it changes; "
        f"{_LEARNING_RATES[CONSTANT]} by default, and {_LEARNING_RATES[COSINE]} with "
        "--schedule=cosine.",
        values,
    )
    define_schedule_flags(values)
    flags.DEFINE_bool(
        "augment",
        False,
        "Train on images that are shifted by up to 4 pixels and mirrored, each time anew.",
        flag_values=values,
    )


def make_task(config: CnnConfig) -> "Task":
    """Opens the data and builds the graph that the config asks for.

    Raises:
      DataError: the images cannot be used.
      TrainingError: the warm-up is longer than the run.
    """
    from models import cnn
    from training.task import Task

    images = _open_images(config)
    num_images, batches = len(images.train), _batches(config, images)
    last = last_step(
        config.train_steps, config.epochs, DEFAULT_STEPS, num_images, config.batch_size
    )
    schedule = _schedule(config, last)
    model = cnn.build(
        num_classes=images.num_classes,
        learning_rate=config.learning_rate,
        seed=config.run.seed,
        schedule=schedule,
    )
    return Task(
        model=model,
        meta_graph=_meta_graph(config, model, images),
        batches=batches,
        batch_size=config.batch_size,
        examples="images",
        test_batches=_test_batches(config, images),
        last_step=last,
        log_every_steps=log_interval(config.run.log_every_steps, num_images, config.batch_size),
        identity=_identity(config, images, schedule),
        write_data=images.write,
    )


def _open_images(config: CnnConfig) -> "ImageData":
    from data.image_data import ReadOptions, open_image_data
    from data.named import RAMP_FILE

    return open_image_data(
        config.data,
        ramp_path=os.path.join(config.run.ckpt_dir, RAMP_FILE),
        validation_fraction=config.validation_fraction,
        seed=config.run.seed,
        options=ReadOptions(
            config.classes,
            config.data_memory_mb,
            config.on_bad_image,
            ignore_exif=config.ignore_exif,
        ),
    )


def _batches(
    config: CnnConfig, images: "ImageData"
) -> "Callable[[int, int], Generator[tuple[Array, ...], None, None]]":
    from data.batches import ShuffledBatches, TrainingBatches, read_ahead

    order = ShuffledBatches(len(images.train), config.batch_size, config.run.seed)
    examples = TrainingBatches(images.train, order, config.on_bad_image)
    batch_of_step = functools.partial(_batch, examples, config)
    return functools.partial(read_ahead, batch_of_step, workers=images.train.workers)


def _test_batches(
    config: CnnConfig, images: "ImageData"
) -> "Callable[[], Iterator[tuple[Array, ...]]] | None":
    from data.batches import BadSoFar, row_batches

    test, bad = images.test, BadSoFar(config.on_bad_image)
    if test is None:
        return None
    return lambda: row_batches(test, _TEST_BATCH_SIZE, bad, test.workers)


def _meta_graph(config: CnnConfig, model: "ModelGraph", images: "ImageData") -> bytes:
    from checkpoints.manifest import Description, export_meta_graph
    from data.source import UINT8_SCALE

    description = Description(
        model.signature_inputs,
        model.signature_outputs,
        class_names=images.class_names,
        input_scale=float(UINT8_SCALE),
        trained_on=RAMP if config.data == RAMP else None,
    )
    return export_meta_graph(model.graph, description)


def _identity(config: CnnConfig, images: "ImageData", schedule: "Schedule") -> Mapping[str, Any]:
    """What the run's numbers follow from."""
    return {
        "model": "cnn",
        **images.identity(),
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.run.seed,
        **schedule.identity(),
        **({"augment": True} if config.augment else {}),
        **({"ignore_exif": True} if config.ignore_exif else {}),
    }


def _schedule(config: CnnConfig, last: int) -> "Schedule":
    """How the learning rate of a run of `last` steps goes."""
    from models.blocks import Schedule

    warmup_steps = config.warmup_steps
    if config.schedule != COSINE:
        return Schedule(warmup_steps or 0)
    if warmup_steps is None:
        warmup_steps = min(_COSINE_WARMUP_STEPS, last // 2)
    if warmup_steps >= last:
        raise TrainingError(
            f"--warmup_steps={warmup_steps} leaves none of the run's {last} steps to "
            f"--schedule=cosine; give --warmup_steps={last - 1} or fewer"
        )
    return Schedule(warmup_steps, cosine_to=last)


def _batch(examples: "TrainingBatches", config: CnnConfig, step: int) -> "tuple[Array, ...]":
    """The images and labels of a step, augmented where the config says so."""
    from data.batches import augment

    images, labels = examples.batch(step)
    return augment(images, config.run.seed, step) if config.augment else images, labels


def train(config: CnnConfig, terminal: TextIO | None = None) -> "Outcome":
    """Trains to the config's last step; raises what `make_task` and `training.loop.train` do."""
    from training import loop

    return loop.train(make_task(config), config.run, terminal)


def main(values: flags.FlagValues, supervisor: Supervisor | None = None) -> int:
    """Trains as the flags say; `supervisor` is that of this process."""
    import_tensorflow(intra_op_threads(values, small_steps=values.batch_size < _SMALL_BATCH))
    rate = values.learning_rate or _LEARNING_RATES[values.schedule]
    terminal = supervisor.terminal() if supervisor else None
    outcome = train(config_of(CnnConfig, values, learning_rate=rate), terminal)
    return print_result(f"step {outcome.step}: {outcome.prefix}", outcome.exit_code)


if __name__ == "__main__":
    supervisor = Supervisor(waits_for_stop=True)
    run(
        functools.partial(main, supervisor=supervisor),
        define_flags,
        __doc__,
        user_errors=(CheckpointError, DataError, TrainingError),
        supervisor=supervisor,
    )
