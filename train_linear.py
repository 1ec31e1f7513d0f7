"""Trains y = w x + b on points of y = 0.1 x + 0.2.

  python train_linear.py --ckpt_dir=model

ends after 300 steps with w = 0.1000 and b = 0.2000 and leaves the checkpoints model/my-model-270
to model/my-model-300. Interrupt it and run the same line again: it goes on where it stopped.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cli.fields import POSITIVE, flag, nested
from cli.run import Supervisor, run
from cli.terminal import import_tensorflow, print_result
from training.config import RunConfig, log_interval, train_steps
from training.workers import take_place

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.task import Task


@dataclass(frozen=True)
class LinearConfig:
    """What a run of this script is asked for."""

    GROUP: ClassVar = "training"

    run: RunConfig = nested(RunConfig, without=("keep_best", "stop_after"), ckpt_dir="model")
    train_steps: int = train_steps(300)
    learning_rate: float = flag("Learning rate of gradient descent.", 0.5, check=POSITIVE)


def make_task(config: LinearConfig) -> "Task":
    """Draws the points and builds the graph; each step is on all points."""
    from checkpoints.writer import export_meta_graph
    from data import batches
    from models import linear
    from training.task import Task

    points = batches.linear_points(config.run.seed)
    model = linear.build(learning_rate=config.learning_rate, seed=config.run.seed)
    num_points = len(points[0])
    own = config.run.rows(num_points)
    return Task(
        model=model,
        meta_graph=export_meta_graph(model),
        batches=lambda start, stop, rows=own: (
            tuple(column[rows] for column in points) for _ in range(start, stop)
        ),
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
        predict_with=("--feed=x=[0.5, 2.0]",),
    )


def train(config: LinearConfig) -> "Outcome":
    """Trains to the config's last step; see `training.loop.train`."""
    from training import loop

    return loop.train(make_task(config), config.run)


def main(config: LinearConfig) -> int:
    """Trains as the config says and prints the line that was found."""
    take_place(config.run)
    import_tensorflow(config.run.threads(small_steps=True))
    outcome = train(config)
    w, b = (float(outcome.variables[name][0]) for name in ("w", "b"))
    line = f"step {outcome.step}: w = {w:.4f}, b = {b:.4f} in {outcome.prefix}"
    return print_result(outcome.verdict or line, outcome.exit_code)


if __name__ == "__main__":
    run(main, LinearConfig, __doc__, Supervisor(waits_for_stop=True))
