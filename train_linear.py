"""Trains y = w x + b on points of y = 0.1 x + 0.2.

  python train_linear.py --ckpt_dir=model

ends after 300 steps with w = 0.1000 and b = 0.2000 and leaves the checkpoints model/my-model-270
to model/my-model-300. Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from absl import flags

from cli import flag_types
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from errors import CheckpointError, TrainingError
from training.config import (
    RunConfig,
    config_of,
    define_length_flags,
    define_run_flags,
    intra_op_threads,
    log_interval,
)

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.task import Task

DEFAULT_STEPS = 300


@dataclass(frozen=True)
class LinearConfig:
    """What a run of this script is asked for; the learning rate is gradient descent's."""

    run: RunConfig
    train_steps: int
    learning_rate: float


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    define_run_flags(values, ckpt_dir="model")
    define_length_flags(values, DEFAULT_STEPS, epochs=False)
    flag_types.define_positive_float(
        "learning_rate", 0.5, "Learning rate of gradient descent.", values
    )


def make_task(config: LinearConfig) -> "Task":
    """Draws the points and builds the graph; each step is on all points."""
    from checkpoints.manifest import Description, export_meta_graph
    from data import batches
    from models import linear
    from training.task import Task

    points = batches.linear_points(config.run.seed)
    model = linear.build(learning_rate=config.learning_rate, seed=config.run.seed)
    description = Description(model.signature_inputs, model.signature_outputs)
    num_points = len(points[0])
    return Task(
        model=model,
        meta_graph=export_meta_graph(model.graph, description),
        batches=lambda start, stop: (points for _ in range(start, stop)),
        batch_size=num_points,
        examples="points",
        test_batches=None,
        last_step=config.train_steps,
        log_every_steps=log_interval(config.run.log_every_steps, num_points, num_points),
        identity={
            "model": "linear",
            "learning_rate": config.learning_rate,
            "seed": config.run.seed,
        },
        logged_variables=("w", "b"),
    )


def train(config: LinearConfig, terminal: TextIO | None = None) -> "Outcome":
    """Trains to the config's last step; see `training.loop.train`."""
    from training import loop

    return loop.train(make_task(config), config.run, terminal)


def main(values: flags.FlagValues, supervisor: Supervisor | None = None) -> int:
    """Trains as the flags say and prints the line that was found; `supervisor` as of `run`."""
    import_tensorflow(intra_op_threads(values, small_steps=True))
    steps = values.train_steps or DEFAULT_STEPS
    terminal = supervisor.terminal() if supervisor else None
    outcome = train(config_of(LinearConfig, values, train_steps=steps), terminal)
    w, b = (float(outcome.variables[name][0]) for name in ("w", "b"))
    return print_result(
        f"step {outcome.step}: w = {w:.4f}, b = {b:.4f} in {outcome.prefix}", outcome.exit_code
    )


if __name__ == "__main__":
    supervisor = Supervisor(waits_for_stop=True)
    run(
        functools.partial(main, supervisor=supervisor),
        define_flags,
        __doc__,
        user_errors=(CheckpointError, TrainingError),
        supervisor=supervisor,
    )
