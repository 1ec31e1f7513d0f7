"""The one training loop: from where the folder stands to the last step, whatever the model.

SIGINT, SIGTERM and SIGHUP are a request that it answers between two steps.
"""

import math
import os
import shlex
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TextIO

import numpy as np
import tensorflow as tf
from absl import logging

from checkpoints import folder, naming
from checkpoints.lock import FolderLock
from checkpoints.writer import CheckpointWriter, RunRecord
from cli.signals import stop_signals
from cli.terminal import ONEDNN_VARIABLE
from errors import TrainingError
from training import resume
from training.config import BFLOAT16, RunConfig
from training.metrics import Metrics, MetricsLog, Progress, refusals_told
from training.task import GraphSession, Task


class Outcome(NamedTuple):
    """How a run ended."""

    step: int  # Updates done.
    prefix: str  # The checkpoint of that step.
    exit_code: int  # 0 when the run is finished, 128 + the signal that stopped it.
    variables: dict[str, np.ndarray[Any, Any]]  # The values that were saved last, by name.


def train(task: Task, config: RunConfig, terminal: TextIO | None = None) -> Outcome:
    """Trains to the task's last step; continues where the folder's newest checkpoint stands.

    Args:
      task: what is trained, and on what.
      config: where, and how often what is due.
      terminal: where its progress is shown; None for stderr.

    Raises:
      CheckpointError: no checkpoint of the folder is good, the last one could not be saved, or a
        variable is no number.
      TrainingError: the folder is of another run or cannot be written, the loss is no number, or
        the best is to be kept and there is nothing to test on.
    """
    if config.keep_best and task.test_batches is None:
        raise TrainingError(
            f"--keep_best needs {task.examples} to test on, and found none: hold some out, such as "
            "with --validation_fraction=0.1"
        )
    bfloat16 = config.precision == BFLOAT16
    if bfloat16:
        task = task._replace(identity={**task.identity, "precision": BFLOAT16})
    _say_what_is_slow(bfloat16)
    with refusals_told(f"--ckpt_dir={config.ckpt_dir} cannot be made"):
        tf.io.gfile.makedirs(config.ckpt_dir)
    with (
        FolderLock(config.ckpt_dir) as lock,
        StopSignals() as stop,
        GraphSession(task.model, bfloat16=bfloat16) as session,
    ):
        start = resume.start(session, config, task)
        if task.write_data is not None:
            task.write_data()
        step = start.step
        if step < task.last_step:
            step = _run(session, task, config, start, lock, stop, terminal)
        prefix = naming.checkpoint_prefix(config.ckpt_dir, step)
        if step >= task.last_step:
            logging.info("finished: %s, step %d of %d", prefix, step, task.last_step)
            logging.info("predict with: %s", _prediction(prefix, task.predict_with))
            exit_code = 0
        else:
            logging.info("stopped at step %d of %d: %s", step, task.last_step, prefix)
            exit_code = 128 + (stop.received or 0)
        variables = {name: np.array(value) for name, value in session.variables().items()}
        return Outcome(step, prefix, exit_code, variables)


def _say_what_is_slow(bfloat16: bool) -> None:
    """Warns where the run is slower than this machine can do, or than was asked for."""
    given = resume.environment()
    if given["onednn"].lower() in ("0", "false"):
        off = f"{ONEDNN_VARIABLE}={given['onednn']} leaves out TensorFlow's faster kernels"
        logging.warning("%s: training may take three times as long", off)
    if bfloat16 and not {*resume.BFLOAT16_FEATURES} & {*given["processor"].split()}:
        logging.warning(
            "--precision=bf16 is no faster here: this processor has no instructions for it"
        )


def _prediction(prefix: str, flags: Sequence[str]) -> str:
    """The command line that predicts with a checkpoint, from the folder that the user is in."""
    script = Path(__file__).resolve().parent.parent / "predict.py"
    if script.is_relative_to(Path.cwd()):
        script = script.relative_to(Path.cwd())
    return shlex.join(["python", str(script), f"--meta={prefix}{naming.META_SUFFIX}", *flags])


def _run(
    session: GraphSession,
    task: Task,
    config: RunConfig,
    start: resume.Start,
    lock: FolderLock,
    stop: "StopSignals",
    terminal: TextIO | None,
) -> int:
    """Trains from `start` on; returns the step it ended at, whose checkpoint is committed."""
    last, save_every = task.last_step, task.save_interval(config.save_every_steps)
    with (
        MetricsLog(config.ckpt_dir, task.model.graph, start.step, task.log_every_steps) as log,
        CheckpointWriter(
            config.ckpt_dir,
            session.specs,
            # The lines of metrics before a checkpoint are made durable with it.
            RunRecord(task.meta_graph, start.identity, resume.environment(), (log.path,)),
            start.retention,
            lock,
        ) as writer,
        Progress(task, start.step, terminal) as progress,
        closing(task.batches(start.step, last)) as batches,
    ):
        writer.check_space()
        step = start.step
        if step == 0 and task.logged_variables:
            log.write(Metrics(0, variables=_logged_variables(session, task)))
        stop.is_starting = False
        for step, batch in enumerate(batches, start.step + 1):
            values = session.train_step(batch)
            if not math.isfinite(values["loss"]):
                raise TrainingError(
                    f"the loss is {values['loss']} at step {step}: the checkpoints before it are "
                    "kept; try a lower --learning_rate"
                )
            progress.step()
            log_due, save_due = due(step, task.log_every_steps, last), due(step, save_every, last)
            is_tested = log_due or (save_due and config.keep_best)
            test_accuracy = (
                session.accuracy_on(task.test_batches())
                if is_tested and task.test_batches
                else None
            )
            if log_due:
                variables = _logged_variables(session, task)
                metrics = Metrics(step, **values, test_accuracy=test_accuracy, variables=variables)
                log.write(metrics)
                progress.log(metrics)
            stopping = stop.received is not None  # Read once: what is saved is where it stops.
            if save_due or stopping:
                log.flush()
                # Which one is the best must not depend on where a run was interrupted.
                writer.save(step, session.variables(), test_accuracy if save_due else None)
            if stopping:
                break
    if not folder.is_whole(config.ckpt_dir, step):
        raise TrainingError(
            f"{naming.checkpoint_prefix(config.ckpt_dir, step)} was saved and is not there any "
            "more: someone has deleted it while the run went on"
        )
    return step


def due(step: int, every: int | Fraction, last: int) -> bool:
    """Whether something is to happen after `step` updates: every `every`, and after the last.

    Of an interval that is not whole, such as an epoch of 468.75 steps, it is the first step at or
    after each multiple: 469, 938, 1407, 1875.
    """
    return step // every > (step - 1) // every or step == last


def _logged_variables(session: GraphSession, task: Task) -> dict[str, float]:
    values = session.variables() if task.logged_variables else {}
    return {name: float(values[name].item()) for name in task.logged_variables}


ECHO_SECONDS = 0.5  # Who started the process may pass on a Ctrl-C that it was sent itself.


class StopSignals:
    """While entered, the first signal is noted and the second SIGINT ends the process at once.

    One that comes within `ECHO_SECONDS` of the first counts as the same.
    """

    def __init__(self) -> None:
        self.received: int | None = None  # The first signal's number.
        self.is_starting = True  # Before the first step, where there is none to save yet.
        self._received_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python delivers signals to the main thread alone, and only it may say who takes them.
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._note) for number in stop_signals()
            }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            saving = (
                b"its first step, once it has started" if self.is_starting else b"the present step"
            )
            _say(b"\nstopping: saving %b (Ctrl-C again stops at once)\n" % saving)
        elif number == signal.SIGINT and now > self._received_at + ECHO_SECONDS:
            # The checkpoints on disk are whole at any instant, so nothing has to be tidied.
            _say(b"\nstopped at once: the step under way is not saved\n")
            os._exit(128 + number)


def _say(line: bytes) -> None:
    """Writes to stderr if that can be written: what a handler raises would break off the step."""
    with suppress(OSError):
        os.write(2, line)
