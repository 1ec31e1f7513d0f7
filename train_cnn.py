"""Trains a small convolutional network on images, of 32x32 pixels unless --image_size says more.

  python train_cnn.py --ckpt_dir=model1

trains 200 steps on drawings of circles, squares, triangles and crosses, and leaves the checkpoints
model1/my-model-170 to model1/my-model-200. On real images, one folder a class:

  python train_cnn.py --ckpt_dir=cifar --data=cifar4 --epochs=20 --batch_size=128

Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cli.fields import POSITIVE, flag, nested
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from data import BUILT_IN, RAMP, SHAPES
from errors import TrainingError
from training.config import (
    CONSTANT,
    COSINE,
    MOST_STEPS,
    Additions,
    DataConfig,
    Length,
    RunConfig,
    data,
    last_step,
    log_interval,
)
from training.workers import take_place

if TYPE_CHECKING:
    from models.blocks import Schedule
    from training.loop import Outcome
    from training.task import Task

DEFAULT_STEPS = 200
IMAGE_SIZE = 32
_BATCH_SIZE, _RAMP_IMAGES = 64, 10
_SMALL_BATCH = 32  # images; below it one thread trains faster than two (python -m benchmarks.speed)
_LEARNING_RATES = {CONSTANT: 1e-3, COSINE: 4e-3}  # docs/measurements.md says why
_COSINE_WARMUP_STEPS = 500  # by default, in a run of twice as many or more


@dataclass(frozen=True)
class CnnConfig(DataConfig, Length, Additions):
    """What a run of this script is asked for."""

    GROUP: ClassVar = "training"

    run: RunConfig = nested(RunConfig, ckpt_dir="model1")
    _: KW_ONLY
    data: str = data(SHAPES)
    batch_size: int | None = flag(
        f"Images a step; by default {_BATCH_SIZE}, or all where there are fewer, as of the ramp.",
        None,
        low=1,
    )
    learning_rate: float | None = flag(
        "Learning rate of Adam, the greatest where it changes; "
        f"{_LEARNING_RATES[CONSTANT]} by default, and {_LEARNING_RATES[COSINE]} with "
        "--schedule=cosine.",
        None,
        check=POSITIVE,
    )
    schedule: str = flag(
        "How the learning rate goes after the warm-up: it stays, or falls along a half cosine to 0 "
        "at the run's last step.",
        CONSTANT,
        choices=(CONSTANT, COSINE),
    )
    warmup_steps: int | None = flag(
        "The first steps, in which the learning rate grows up to its full value; by default 0, and "
        "with --schedule=cosine 500, or half the run where that is less.",
        None,
        low=0,
        high=MOST_STEPS,
    )
    augment: bool = flag(
        "Train on images that are shifted by up to 4 pixels and mirrored, each time anew.", False
    )
    image_size: int = flag(
        "Height and width of the images that the model takes, in pixels: images in files, "
        "and uint8 ones of an .npz, are resized to it; other arrays have to have it.",
        IMAGE_SIZE,
        low=8,
        high=512,
        group=DataConfig.GROUP,
    )

    @property
    def batch(self) -> int:
        """The images a step where there are as many; by default as they fit the kind of data."""
        return self.batch_size or (_RAMP_IMAGES if self.data == RAMP else _BATCH_SIZE)

    @property
    def rate(self) -> float:
        """The learning rate, the schedule's own where none is asked for."""
        return self.learning_rate or _LEARNING_RATES[self.schedule]


def make_task(config: CnnConfig) -> "Task":
    """Opens the data and builds the graph that the config asks for.

    Raises:
      DataError: the images cannot be used.
      TrainingError: with --schedule=cosine, the warm-up is as long as the run, or longer.
    """
    from checkpoints.writer import export_meta_graph
    from data.batches import ShuffledBatches, TrainingBatches, evaluation_batches
    from data.files import UINT8_SCALE
    from models import cnn
    from models.blocks import Recipe
    from training.task import Task, open_images, predict_with

    images = open_images(config, config.run, (config.image_size, config.image_size, 3))
    num_images = len(images.train)
    if config.batch_size is None:
        config = replace(config, batch_size=min(config.batch, num_images))
    examples = TrainingBatches(
        images.train,
        ShuffledBatches(num_images, config.batch, config.run.seed),
        config.on_bad_image,
        own=config.run.rows(config.batch),
        augmented=config.augment,
    )
    last = last_step(config.train_steps, config.epochs, DEFAULT_STEPS, num_images, config.batch)
    schedule = _schedule(config, last)
    model = cnn.build(
        num_classes=images.num_classes,
        learning_rate=config.rate,
        seed=config.run.seed,
        schedule=schedule,
        image_size=config.image_size,
        recipe=Recipe.of(config.added(), images.train.labels, images.num_classes),
    )
    data_set = config.data if config.data in BUILT_IN else None
    return Task(
        model=model,
        meta_graph=export_meta_graph(model, images.class_names, float(UINT8_SCALE), data_set),
        batches=examples.of_steps,
        batch_size=config.batch,
        examples="images",
        test_batches=evaluation_batches(images.test, config.on_bad_image),
        last_step=last,
        log_every_steps=log_interval(config.run.log_every_steps, num_images, config.batch),
        identity={
            "model": "cnn",
            **images.identity(),
            "batch_size": config.batch,
            "learning_rate": config.rate,
            "seed": config.run.seed,
            **schedule.identity(),
            **({"augment": True} if config.augment else {}),
            **({"ignore_exif": True} if config.ignore_exif else {}),
            **({"image_size": config.image_size} if config.image_size != IMAGE_SIZE else {}),
            **config.added(),
        },
        write_data=images.write,
        predict_with=predict_with(config.data),
    )


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


def train(config: CnnConfig) -> "Outcome":
    """Trains to the config's last step; raises what `make_task` and `training.loop.train` do."""
    from training import loop

    return loop.train(make_task(config), config.run)


def main(config: CnnConfig) -> int:
    """Trains as the config says."""
    take_place(config.run)
    import_tensorflow(config.run.threads(small_steps=config.batch < _SMALL_BATCH))
    outcome = train(config)
    line = outcome.verdict or f"step {outcome.step}: {outcome.prefix}"
    return print_result(line, outcome.exit_code)


if __name__ == "__main__":
    run(main, CnnConfig, __doc__, Supervisor(waits_for_stop=True))
