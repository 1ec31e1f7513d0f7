"""Trains a perceptron with two hidden layers on handwritten digits.

  python train_mlp.py --ckpt_dir=ckpt_dir --data_dir=MNIST_data/

takes the four files of MNIST, as they are or gzipped, trains 50 epochs, prints the test accuracy
after each and saves a checkpoint. Interrupt it and run the same line again: it goes on where it
stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from cli.fields import POSITIVE, flag, nested
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from training.config import Additions, Length, RunConfig, last_step, train_steps
from training.workers import take_place

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.task import Task

DEFAULT_EPOCHS = 50
_SMALL_BATCH = 256  # digits; below it two threads gain too little to change the bytes for
_TEST_BATCH_SIZE = 1000  # digits at once: their activations take 8 MB


@dataclass(frozen=True)
class MlpConfig(Length, Additions):
    """What a run of this script is asked for."""

    GROUP: ClassVar = "training"

    run: RunConfig = nested(
        RunConfig,
        ckpt_dir="ckpt_dir",
        save_every_steps=flag(
            "Steps between two checkpoints; by default an epoch. The last step is always saved.",
            None,
            low=1,
            group="checkpoints",
        ),
        max_to_keep=5,
    )
    _: KW_ONLY
    data_dir: str = flag(
        "Folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, with or without .gz.",
        "MNIST_data/",
        path=True,
        group="data",
    )
    train_steps: int | None = train_steps(None, f"; {DEFAULT_EPOCHS} epochs by default")
    batch_size: int = flag("Digits a step.", 128, low=1)
    learning_rate: float = flag("Learning rate of RMSProp.", 1e-3, check=POSITIVE)


def make_task(config: MlpConfig) -> "Task":
    """Opens the data and builds the graph that the config asks for.

    What is due once an epoch is due at the first step that completes it: a batch may hold the end
    of one epoch and the start of the next.

    Raises:
      DataError: the digits cannot be used.
    """
    from checkpoints.writer import export_meta_graph
    from data.batches import ShuffledBatches, TrainingBatches, row_batches
    from data.files import UINT8_SCALE
    from data.named import CLASS_NAMES, IMAGE_SHAPE, find_file, open_mnist
    from models import mlp
    from models.blocks import Recipe
    from training.task import Task

    digits, test_digits = open_mnist(config.data_dir)
    num_digits, batch_size = len(digits), config.batch_size
    order = ShuffledBatches(num_digits, batch_size, config.run.seed)
    examples = TrainingBatches(digits, order, own=config.run.rows(batch_size))
    recipe = Recipe.of(config.added(), digits.labels, mlp.NUM_CLASSES)
    model = mlp.build(learning_rate=config.learning_rate, seed=config.run.seed, recipe=recipe)
    epochs = config.epochs or DEFAULT_EPOCHS
    return Task(
        model=model,
        meta_graph=export_meta_graph(
            model, CLASS_NAMES, float(UINT8_SCALE), image_shape=IMAGE_SHAPE
        ),
        batches=examples.of_steps,
        batch_size=batch_size,
        examples="digits",
        test_batches=lambda: row_batches(test_digits, _TEST_BATCH_SIZE),
        last_step=last_step(config.train_steps, epochs, 0, num_digits, batch_size),
        log_every_steps=config.run.log_every_steps or Fraction(num_digits, batch_size),
        identity={
            "model": "mlp",
            "data": digits.digest(),
            "test_data": test_digits.digest(),
            "images": num_digits,
            "batch_size": batch_size,
            "learning_rate": config.learning_rate,
            "seed": config.run.seed,
            **config.added(),
        },
        epoch_steps=Fraction(num_digits, batch_size),
        predict_with=(f"--input={find_file(config.data_dir, 't10k-images', 3)}",),
    )


def train(config: MlpConfig) -> "Outcome":
    """Trains to the config's last step; raises what `make_task` and `training.loop.train` do."""
    from training import loop

    return loop.train(make_task(config), config.run)


def main(config: MlpConfig) -> int:
    """Trains as the config says."""
    take_place(config.run)
    import_tensorflow(config.run.threads(small_steps=config.batch_size < _SMALL_BATCH))
    outcome = train(config)
    line = outcome.verdict or f"step {outcome.step}: {outcome.prefix}"
    return print_result(line, outcome.exit_code)


if __name__ == "__main__":
    run(main, MlpConfig, __doc__, Supervisor(waits_for_stop=True))
