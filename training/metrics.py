"""A run's metrics: `logs/metrics.jsonl`, TensorBoard events, and what a terminal shows."""

import io
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image
from tensorboard.plugins.hparams.summary import session_start_pb  # `api` loads Keras.
from tqdm import tqdm

import file_io
from checkpoints.reader import Array
from errors import TrainingError, reason
from file_io import names_in
from training.task import Task

LOGS_FOLDER = "logs"
METRICS_FILE = "metrics.jsonl"
_FLUSH_SECONDS = 10.0  # TensorBoard shows what is written this late, or with the next save.
_NUMBERS = ("loss", "accuracy", "test_accuracy", "learning_rate")  # Of `Metrics`, in a line.
_BINS = 30  # Of a histogram.
_PICTURE = 256  # Pixels of a confusion, about.
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d{16})\.")


@contextmanager
def refusals_told(what: str, mend: str = "") -> Iterator[None]:
    """Makes a TrainingError of what the file system refuses: `what`, why, and what mends it."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise TrainingError(f"{what}: {reason(error)}{mend}") from error


class Metrics(NamedTuple):
    """One line of the log; None is what there is not."""

    step: int  # Updates done.
    loss: float | None = None  # Of the batch, before the update and with dropout on.
    accuracy: float | None = None  # In [0, 1]; as the loss.
    test_accuracy: float | None = None  # After the update, with dropout off.
    learning_rate: float | None = None  # Of the update, where it changes.
    variables: Mapping[str, float] = MappingProxyType({})  # The task's `logged_variables`.
    confusion: Array | None = None  # Of the test split, as of `Evaluation`; for TensorBoard alone.

    def line(self) -> str:
        """As the log has it."""
        return json.dumps({"step": self.step, **self.numbers()}) + "\n"

    def numbers(self) -> dict[str, float]:
        """Name -> value, without the step and without what is None."""
        own = {name: getattr(self, name) for name in _NUMBERS}
        return {**{k: v for k, v in own.items() if v is not None}, **self.variables}


def _writing() -> AbstractContextManager[None]:
    mend = "; the checkpoints stay, and the same command goes on from the newest"
    return refusals_told("the metrics cannot be written", mend)


class MetricsLog:
    """Appends to both logs; a resumed run goes on as if it had never been interrupted.

    What the file system refuses, such as on a full disk, is raised as a TrainingError.
    """

    def __init__(
        self,
        ckpt_dir: str,
        graph: tf.Graph,
        start: int,
        every: int | Fraction = 1,
        identity: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Opens the logs of a run that has done `start` steps and drops what is beyond them.

        What is missing of the steps before, a line each `every` steps, is said. TensorBoard shows
        `graph`, and the run by what its `identity` says.
        """
        folder = os.path.join(ckpt_dir, LOGS_FOLDER)
        self.path = os.path.join(folder, METRICS_FILE)
        with _writing():
            file_io.make_folder(folder)
            _cut(self.path, start, every)
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
            # TensorBoard's tab HPARAMS shows numbers, texts and switches alone.
            told = {k: v for k, v in identity.items() if isinstance(v, bool | int | float | str)}
            self._write_event(summary=session_start_pb(told), step=start)
            self._flushed = time.monotonic()

    def _write_event(self, **content: Any) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **content)
        self._events.write(event.SerializeToString())

    def write(self, metrics: Metrics) -> None:
        """Adds one line, and the same numbers as scalars; neither need be on the disk yet.

        Those of steps that are done again are dropped by the next `MetricsLog`, flushed or not.
        """
        new = tf.compat.v1.Summary.Value
        values = [new(tag=name, simple_value=value) for name, value in metrics.numbers().items()]
        if metrics.confusion is not None:
            values.append(new(tag="test_confusion", image=_picture(metrics.confusion)))
        with _writing():
            self._lines.write(metrics.line())
            self._write_event(summary=tf.compat.v1.Summary(value=values), step=metrics.step)
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def write_histograms(self, step: int, variables: Mapping[str, Array]) -> None:
        """Adds a histogram of each variable's values after a step, for TensorBoard."""
        new = tf.compat.v1.Summary.Value
        values = [new(tag=name, histo=_histogram(value)) for name, value in variables.items()]
        with _writing():
            self._write_event(summary=tf.compat.v1.Summary(value=values), step=step)

    def flush(self) -> None:
        """Hands all lines and events to the file system; a checkpoint after them needs them."""
        with _writing():
            self._lines.flush()
            self._events.flush()
        self._flushed = time.monotonic()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Closes; an error that is already on its way is not replaced by one of the files."""
        lesser = (TrainingError,) if kind else ()
        with suppress(*lesser), _writing():
            self._lines.close()
            self._events.close()


def _histogram(values: Array) -> tf.compat.v1.HistogramProto:
    """Of the finite ones among some values; format: `tensorflow/core/framework/summary.proto`."""
    numbers = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(numbers, _BINS)
    return tf.compat.v1.HistogramProto(
        min=edges[0],
        max=edges[-1],
        num=numbers.size,
        sum=numbers.sum(),
        sum_squares=np.square(numbers).sum(),
        bucket_limit=edges[1:],
        bucket=counts,
    )


def _picture(confusion: Array) -> tf.compat.v1.Summary.Image:
    """A row for each true class, a column for each predicted one; black is all of a row."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    cell = np.full(2 * (max(1, _PICTURE // len(confusion)),), 255)
    pixels, content = np.kron(1 - shares, cell).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    height, width = pixels.shape
    return tf.compat.v1.Summary.Image(
        height=height, width=width, colorspace=1, encoded_image_string=content.getvalue()
    )


def _events_name(folder: str, start: int) -> str:
    """A name that no other process has, and that sorts behind those in the folder.

    TensorBoard reads the files in that order. The clock alone would not do: it may have been ahead.
    """
    found = map(_EVENTS.match, names_in(folder))
    times = [int(match[1]) + 1 for match in found if match]
    unique = f"{socket.gethostname()}.{os.getpid()}.{start:010d}"
    return f"events.out.tfevents.{max([time.time_ns() // 1000, *times]):016d}.{unique}"


def _cut(path: str, start: int, every: int | Fraction) -> None:
    """Keeps the whole lines of the steps up to `start`; a process that was killed wrote more.

    Logs which lines and events of those steps are missing. A run at step 0 keeps no line: it writes
    that of step 0 anew.
    """
    lines = lines_of(path)
    steps = [step_of(line) for line in lines]
    is_kept = [start > 0 and step is not None and step <= start for step in steps]
    kept = [line for line, stays in zip(lines, is_kept, strict=True) if stays]
    if kept != lines:
        file_io.replace_file(path, b"".join(kept))
    if start == 0:
        return
    if None in steps[:-1]:
        logging.warning("%s: %d lines are damaged and left out", path, steps[:-1].count(None))
    last = max((step_of(line) or 0 for line in kept), default=0)
    if start - last >= every:
        found = f"ends at step {last}" if lines else "is missing or empty"
        logging.warning("%s %s: of the steps from there to %d there is none", path, found, start)
    folder = os.path.dirname(path)
    if not any(map(_EVENTS.match, names_in(folder))):
        logging.warning("%s has no events of the steps up to %d", folder, start)


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


class Profile:
    """Has TensorFlow's profiler watch the steps that are asked for, as TensorBoard shows it."""

    def __init__(self, ckpt_dir: str, steps: tuple[int, int] | None) -> None:
        """Watches nothing yet; of (100, 110), it is to be the ten steps after step 100."""
        self._folder = os.path.join(ckpt_dir, LOGS_FOLDER)
        self._first, self._last = steps or (0, 0)
        self._is_on: bool | None = None  # None: it has not been yet.

    def after(self, step: int) -> None:
        """Begins or ends, where that is due after a step."""
        is_due = self._first <= step < self._last
        if is_due == bool(self._is_on):
            return
        self._is_on = is_due
        with refusals_told(f"--profile_steps: no profile can be written into {self._folder}"):
            if is_due:
                tf.profiler.experimental.start(self._folder)
            else:
                tf.profiler.experimental.stop()
                logging.info("wrote a profile: tensorboard --logdir=%s shows it", self._folder)

    def close(self) -> None:
        """Ends with the run, where that ends before."""
        self.after(self._last)
        if self._last and self._is_on is None:
            logging.warning("--profile_steps: none of them was trained, and no profile is written")


class Progress:
    """What a person sees of a run: a bar on a terminal, and lines above it.

    A stream that is no terminal has the lines alone.
    """

    def __init__(self, task: Task, start: int, terminal: TextIO | None = None) -> None:
        """Begins at step `start` of a task; all goes to `terminal`, by default stderr."""
        self._task, self._stream = task, sys.stderr if terminal is None else terminal
        self._begun = self._logged = (start, time.perf_counter())
        self._bar = tqdm(
            initial=start,
            total=task.last_step,
            unit="step",
            dynamic_ncols=True,
            file=self._stream,
            disable=not self._stream.isatty(),
        )

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()

    def log(self, metrics: Metrics) -> None:
        """Writes the line of a step: its metrics, examples a second since the last, time left."""
        step, now = metrics.step, time.perf_counter()
        (first_step, begun), (last_step, last_time) = self._begun, self._logged
        self._logged = (step, now)
        rate = (step - last_step) * self._task.batch_size / (now - last_time)
        left = (self._task.last_step - step) * (now - begun) / (step - first_step)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        numbers = "  ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.numbers().items())
        self._bar.write(
            f"step {step}/{self._task.last_step}  {numbers}  {rate:,.0f} {self._task.examples}/s  "
            f"{hours}:{minutes:02d}:{seconds:02d} left",
            file=self._stream,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
