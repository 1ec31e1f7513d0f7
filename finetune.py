"""Trains a new head on a part of any model.

  python finetune.py cifar --tensor=Relu:0 --data=flowers

takes the network up to the tensor, with the values of its checkpoint, and trains a new last layer
on it for the classes of the data: finetuned/my-model-200 is a checkpoint like any other. What is
taken stays as it is, unless --train_scopes=fc1,conv2 unfreezes parts of it.

Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from typing import TYPE_CHECKING

from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from errors import TrainingError
from finetuning import FinetuneConfig
from training.workers import take_place

if TYPE_CHECKING:
    from training.loop import Outcome

_SMALL_BATCH = 32  # images; below it one thread trains faster than two


def train(config: FinetuneConfig) -> "Outcome":
    """Trains to the config's last step.

    Raises:
      CheckpointError, DataError, TrainingError: what `finetuning.fitting.make_task` and
        `training.loop.train` raise, and one line for an operation of the model that fails.
    """
    from finetuning.fitting import make_task
    from metagraph.importing import reason_of_run, run_errors
    from training import loop

    try:
        return loop.train(make_task(config), config.run)
    except run_errors() as error:
        raise TrainingError(f"{config.meta} cannot be trained on{reason_of_run(error)}") from error


def main(config: FinetuneConfig) -> int:
    """Trains as the config says."""
    small = config.batch_size is not None and config.batch_size < _SMALL_BATCH
    take_place(config.run)
    import_tensorflow(config.run.threads(small_steps=small))
    outcome = train(config)
    line = outcome.verdict or f"step {outcome.step}: {outcome.prefix}"
    return print_result(line, outcome.exit_code)


if __name__ == "__main__":
    supervisor = Supervisor("give it a smaller --batch_size", waits_for_stop=True)
    run(main, FinetuneConfig, __doc__, supervisor)
