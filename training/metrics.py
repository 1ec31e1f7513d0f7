"""A run's metrics: `logs/metrics.jsonl`, TensorBoard events, and what a terminal shows."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from checkpoints import file_io
from checkpoints.file_io import names_in
from errors import TrainingError, reason

LOGS_FOLDER = "logs"
METRICS_FILE = "metrics.jsonl"
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d{16})\.")


class Metrics(NamedTuple):
    """One line of the log.

    Loss, accuracy and learning rate are those of the step's batch, as in
    `training.task.StepValues`; the rest is measured after its update.
    """

    step: int  # Updates done.
    loss: float | None = None  # None before the first step.
    accuracy: float | None = None
    test_accuracy: float | None = None  # None where there is no test split.
    learning_rate: float | None = None
    variables: Mapping[str, float] = MappingProxyType({})  # The task's `logged_variables`.

    def numbers(self) -> dict[str, float]:
        """Name -> value, without the step and without what is None."""
        told = self._asdict()
        del told["step"], told["variables"]
        return {**{k: v for k, v in told.items() if v is not None}, **self.variables}


class MetricsLog:
    """Appends to both logs; a resumed run goes on as if it had never been interrupted.

    Whatever the file system refuses, such as on a full disk, is raised as a TrainingError.
    """

    def __init__(
        self, ckpt_dir: str, graph: tf.Graph, start: int, every: int | Fraction = 1
    ) -> None:
        """Opens the logs of a run that has done `start` steps and drops what is beyond them.

        What is missing of the steps before, of which each `every` has a line, is logged.
        TensorBoard shows `graph`.
        """
        folder = os.path.join(ckpt_dir, LOGS_FOLDER)
        self.path = os.path.join(folder, METRICS_FILE)
        with _refusals_as_training_errors():
            tf.io.gfile.makedirs(folder)
            _say_what_is_missing(self.path, start, every)
            _drop_lines_after(self.path, start)
            self._lines = tf.io.gfile.GFile(self.path, "a")
            self._lines.write("")  # A GFile makes its file with the first write.
            self._lines.flush()
            # tensorflow/core/util/event.proto in a TFRecord file, as TensorBoard reads it.
            self._events = tf.io.TFRecordWriter(os.path.join(folder, _events_name(folder, start)))
            self._write_event(file_version="brain.Event:2")
            if start == 0:
                self._write_event(graph_def=graph.as_graph_def().SerializeToString())
            # TensorBoard forgets the events from this step on that an earlier process wrote, as has
            # one that was killed before its first checkpoint.
            begun = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._write_event(session_log=begun, step=start + 1 if start else 0)

    def _write_event(self, **content: Any) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **content)
        self._events.write(event.SerializeToString())

    def write(self, metrics: Metrics) -> None:
        """Adds one line, and the same numbers as scalars; neither need be on the disk yet."""
        numbers = metrics.numbers()
        values = [tf.compat.v1.Summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]
        with _refusals_as_training_errors():
            self._lines.write(json.dumps({"step": metrics.step, **numbers}) + "\n")
            self._write_event(summary=tf.compat.v1.Summary(value=values), step=metrics.step)

    def flush(self) -> None:
        """Hands all lines and events to the file system: before a checkpoint that follows them."""
        with _refusals_as_training_errors():
            self._lines.flush()
            self._events.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Closes; an error that is already on its way is not replaced by one of the files."""
        try:
            with _refusals_as_training_errors():
                self._lines.close()
                self._events.close()
        except TrainingError:
            if kind is None:
                raise


@contextmanager
def _refusals_as_training_errors() -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise TrainingError(
            f"the metrics cannot be written: {reason(error)}; the checkpoints stay, and the same "
            "command goes on from the newest"
        ) from error


def _events_name(folder: str, start: int) -> str:
    """A name that no other process has, and that sorts behind those in the folder.

    TensorBoard reads the files in that order. The clock alone would not do: it may have been ahead.
    """
    found = map(_EVENTS.match, names_in(folder))
    times = [int(match[1]) + 1 for match in found if match]
    unique = f"{socket.gethostname()}.{os.getpid()}.{start:010d}"
    return f"events.out.tfevents.{max([time.time_ns() // 1000, *times]):016d}.{unique}"


def _say_what_is_missing(path: str, start: int, every: int | Fraction) -> None:
    """Logs which lines and events of the steps up to `start` are not there any more."""
    if start == 0:
        return
    steps = [step_of(line) for line in lines_of(path)]
    last = max((step for step in steps if step is not None and step <= start), default=0)
    if None in steps[:-1]:
        logging.warning("%s: %d lines are damaged and left out", path, steps[:-1].count(None))
    if start - last >= every:
        logging.warning(
            "%s %s: of the steps from there to %d there is none",
            path,
            f"ends at step {last}" if steps else "is missing or empty",
            start,
        )
    if not any(map(_EVENTS.match, names_in(os.path.dirname(path)))):
        logging.warning("%s has no events of the steps up to %d", os.path.dirname(path), start)


def _drop_lines_after(path: str, step: int) -> None:
    """Keeps the whole lines up to `step`; a process that was killed may have written more.

    A run at step 0 keeps none: it writes that one anew.
    """
    lines = lines_of(path)
    found = [(step_of(line), line) for line in lines]
    kept = [line for at, line in found if step and at is not None and at <= step]
    if kept != lines:
        file_io.replace_file(path, b"".join(kept))


def lines_of(path: str) -> list[bytes]:
    """The lines of a log, each with its end; none where there is no such file."""
    return (file_io.content_of(path) or b"").splitlines(keepends=True)


def step_of(line: bytes) -> int | None:
    """The step of a line of the log, 0 or more; None for one that was cut short or is damaged."""
    try:
        step = int(json.loads(line)["step"]) if line.endswith(b"\n") else -1
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return step if step >= 0 else None


class Progress:
    """What a person sees of a run: a bar on a terminal, and lines above it.

    It goes to stderr, or another stream; one that is no terminal has the lines alone.
    """

    def __init__(
        self,
        start: int,
        last: int,
        batch_size: int,
        examples: str,
        terminal: TextIO | None = None,
    ) -> None:
        """Begins at step `start` of `last`, each with `batch_size` examples, such as "images"."""
        self._stream = sys.stderr if terminal is None else terminal
        self._last, self._batch_size, self._examples = last, batch_size, examples
        self._start, self._started_at = start, time.perf_counter()
        self._logged, self._logged_at = start, self._started_at
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                initial=start, total=last, unit="step", dynamic_ncols=True, file=self._stream
            )

    def step(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def log(self, metrics: Metrics) -> None:
        """Writes the line of a step: its metrics, examples a second since the last, time left."""
        now = time.perf_counter()
        rate = (metrics.step - self._logged) * self._batch_size / (now - self._logged_at)
        left = (self._last - metrics.step) * (now - self._started_at) / (metrics.step - self._start)
        self._logged, self._logged_at = metrics.step, now
        numbers = "  ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.numbers().items())
        self._say(
            f"step {metrics.step}/{self._last}  {numbers}  "
            f"{rate:,.0f} {self._examples}/s  {_clock(left)} left"
        )

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    """`h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
