"""How fast train_cnn.py trains, with everything on, after a warm-up."""

import os
import tempfile
import time
from collections.abc import Generator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train_cnn import CnnConfig
    from training.task import Batch, Task

_WARM_UP_STEPS = 20


def training_config(
    data: str,
    ckpt_dir: str,
    batch_size: int,
    steps: int,
    *,
    save_every_steps: int = 100,
    data_memory_mb: int = 512,
    augment: bool = False,
) -> "CnnConfig":
    """A run on the images of `data`, with log lines every ten steps."""
    from train_cnn import CnnConfig
    from training.config import RunConfig

    return CnnConfig(
        run=RunConfig(
            ckpt_dir=ckpt_dir,
            seed=0,
            save_every_steps=save_every_steps,
            max_to_keep=4,
            keep_checkpoint_every_n_hours=0.0,
            log_every_steps=10,
            allow_config_change=False,
        ),
        data=data,
        validation_fraction=0.0,
        train_steps=steps,
        epochs=None,
        batch_size=batch_size,
        learning_rate=1e-3,
        data_memory_mb=data_memory_mb,
        augment=augment,
    )


def training_speed(data: str, folder: Path, batch_size: int, steps: int, **changes: Any) -> float:
    """Trains in a folder of `folder`; images a second after the warm-up, the last save included.

    `changes` are those of `training_config`.
    """
    from train_cnn import make_task
    from training import loop

    with tempfile.TemporaryDirectory(dir=folder) as ckpt_dir, open(os.devnull, "w") as log:
        steps_in_all = _WARM_UP_STEPS + steps
        config = training_config(data, ckpt_dir, batch_size, steps_in_all, **changes)
        task, clock = _timed(make_task(config))
        with redirect_stderr(log):
            loop.train(task, config.run)
        return steps * batch_size / (time.perf_counter() - clock[0])


def _timed(task: "Task") -> tuple["Task", list[float]]:
    """The same task, which notes the time when its warm-up is over."""
    clock: list[float] = []

    def batches(start: int, stop: int) -> "Generator[Batch, None, None]":
        for count, batch in enumerate(task.batches(start, stop)):
            if count == _WARM_UP_STEPS:
                clock.append(time.perf_counter())
            yield batch

    return task._replace(batches=batches), clock
