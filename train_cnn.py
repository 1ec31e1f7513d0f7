"""Trains a small convolutional network on 32x32 images.

  python train_cnn.py --ckpt_dir=model1

trains 200 steps on a built-in ramp of ten images in four classes and leaves the checkpoints
model1/my-model-170 to model1/my-model-200. On real images, one folder a class:

  python train_cnn.py --ckpt_dir=cifar --data=cifar4 --epochs=20 --batch_size=128

Interrupt it and run the same line again: it goes on where it stopped.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from absl import flags

from checkpoints.errors import CheckpointError
from cli import flag_types
from cli.run import run
from cli.tensorflow_startup import import_tensorflow
from data.errors import DataError
from training.config import RunConfig, last_step, log_interval
from training.errors import TrainingError
from training.flags import define_length_flags, define_run_flags, intra_op_threads, run_config

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.task import Task

DEFAULT_STEPS = 200
RAMP = "ramp"
_SMALL_BATCH = 32  # images; below it one thread trains faster than two (python -m benchmarks.speed)
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


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    define_run_flags(values, ckpt_dir="model1")
    define_length_flags(values, DEFAULT_STEPS, epochs=True)
    flag_types.define_path(
        "data",
        RAMP,
        "Images to train on: 'ramp'; an .npz with X [N,32,32,3] and Y [N]; or a folder with one "
        "subfolder a class, or with train/ and test/ of that kind.",
        values,
    )
    flag_types.define_non_negative_float(
        "validation_fraction",
        0.0,
        "Share of the images held out as the test split, where --data has no test/.",
        values,
        below=1.0,
    )
    flags.DEFINE_integer("batch_size", 10, "Images a step.", lower_bound=1, flag_values=values)
    flag_types.define_positive_float("learning_rate", 1e-3, "Learning rate of Adam.", values)


def make_task(config: CnnConfig) -> "Task":
    """Opens the data and builds the graph that the config asks for.

    Raises:
      DataError: the images cannot be used.
    """
    from checkpoints.meta_graph import Description, export_meta_graph
    from data.batches import ShuffledBatches
    from data.image_data import open_image_data
    from data.ramp import RAMP_FILE
    from data.read_ahead import read_ahead
    from data.row_batches import row_batches
    from data.source import UINT8_SCALE
    from models import cnn
    from training.task import Task

    images = open_image_data(
        config.data,
        ramp_path=os.path.join(config.run.ckpt_dir, RAMP_FILE),
        validation_fraction=config.validation_fraction,
        seed=config.run.seed,
    )
    num_images, source, test = len(images.train), images.train, images.test
    order = ShuffledBatches(num_images, config.batch_size, config.run.seed)
    model = cnn.build(
        num_classes=images.num_classes, learning_rate=config.learning_rate, seed=config.run.seed
    )
    description = Description(
        model.signature_inputs,
        model.signature_outputs,
        class_names=images.class_names,
        input_scale=float(UINT8_SCALE),
        trained_on=RAMP if config.data == RAMP else None,
    )
    return Task(
        model=model,
        meta_graph=export_meta_graph(model.graph, description),
        batches=lambda start, stop: read_ahead(
            lambda step: source.rows(order.indices(step)), start, stop
        ),
        batch_size=config.batch_size,
        examples="images",
        test_batches=None if test is None else lambda: row_batches(test, _TEST_BATCH_SIZE),
        last_step=last_step(
            config.train_steps, config.epochs, DEFAULT_STEPS, num_images, config.batch_size
        ),
        log_every_steps=log_interval(config.run.log_every_steps, num_images, config.batch_size),
        identity={
            "model": "cnn",
            "data": source.digest(),
            "images": num_images,
            "classes": list(images.class_names) or images.num_classes,
            "batch_size": config.batch_size,
            "learning_rate": config.learning_rate,
            "seed": config.run.seed,
        },
    )


def train(config: CnnConfig) -> "Outcome":
    """Trains to the config's last step; raises what `make_task` and `training.loop.train` do."""
    from training import loop

    return loop.train(make_task(config), config.run)


def main(values: flags.FlagValues) -> int:
    """Trains as the flags say."""
    import_tensorflow(intra_op_threads(values, small_steps=values.batch_size < _SMALL_BATCH))
    outcome = train(
        CnnConfig(
            run=run_config(values),
            data=values.data,
            validation_fraction=values.validation_fraction,
            train_steps=values.train_steps,
            epochs=values.epochs,
            batch_size=values.batch_size,
            learning_rate=values.learning_rate,
        )
    )
    print(f"step {outcome.step}: {outcome.prefix}")
    return outcome.exit_code


if __name__ == "__main__":
    run(main, define_flags, __doc__, user_errors=(CheckpointError, DataError, TrainingError))
