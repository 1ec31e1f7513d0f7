"""Audits a run: its steps are computed again, and compared with what its folder holds of them.

Training is a pure function of (config, seed, step): what was saved comes of it again, to the byte,
or was changed. Nothing is written.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

import file_io
from checkpoints import folder, layout, lock
from checkpoints.reader import Array, Restored, restore
from errors import CheckpointError, TrainingError, first_few
from training import resume
from training.config import ALL_STEPS, RunConfig
from training.loop import Outcome, due, measured, open_session, train_steps
from training.metrics import LOGS_FOLDER, METRICS_FILE, Metrics, Progress, lines_of, step_of
from training.task import GraphSession, Task

_MOST_NAMED = 8
_MOST_OF_A_LINE = 300  # Bytes of a line of the log that are shown.
_OTHERWISE = "replay a copy of it"


class DifferenceError(Exception):
    """What the folder holds is not what training gives: one line says what."""


def replay(task: Task, config: RunConfig, stop: Callable[[], int | None]) -> Outcome:
    """Trains from one checkpoint to another in memory, and compares all that is saved in between.

    It ends at the first difference.

    Raises:
      CheckpointError: a checkpoint is damaged, or somebody trains into the folder.
      TrainingError: a checkpoint is not there, or is of another run.
    """
    path = config.ckpt_dir
    lock.check_unused(path, _OTHERWISE)
    first, last = _steps(path, config.replay or ALL_STEPS)
    until = task._replace(last_step=last)
    with (
        open_session(task, config, stop) as (session, alone),
        Progress(until, first, config.terminal) as progress,
    ):
        try:
            witness = Witness(session, task, config, (first, last), progress)
            train_steps(session, until, RunConfig(path), alone, first, witness)
            verdict, exit_code = f"equal: {witness.compared()}", 0
        except (CheckpointError, DifferenceError) as found:
            lock.check_unused(path, _OTHERWISE)  # A run that has begun since changes the folder.
            if isinstance(found, CheckpointError):
                raise
            verdict, exit_code = f"different: {found}", 1
        variables = {name: np.array(value) for name, value in session.variables().items()}
    return Outcome(last, layout.checkpoint_prefix(path, last), exit_code, variables, verdict)


def _steps(path: str, asked: tuple[int, int]) -> tuple[int, int]:
    """The first step and the last; TrainingError where one has no checkpoint."""
    kept = folder.usable_steps(path)
    if not kept:
        found = "holds no checkpoint" if file_io.is_folder(path) else "is not there"
        raise TrainingError(f"{path} {found}: name the folder of the run with --ckpt_dir")
    first, last = (kept[0], kept[-1]) if asked == ALL_STEPS else asked
    if first == last:
        raise TrainingError(
            f"{path} has one checkpoint alone: --replay=0:{last} begins with the seed"
        )
    for step in (first, last):
        if step not in (0, *kept):
            there = first_few([*map(str, kept)], _MOST_NAMED)
            raise TrainingError(f"{path} has no checkpoint of step {step}, but of {there}")
    return first, last


class Witness:
    """Compares each step with what the folder holds of it; stands where a run has its `Keeper`."""

    best: folder.Saved | None = None  # An audit is not ended by --stop_after.

    def __init__(
        self,
        session: GraphSession,
        task: Task,
        config: RunConfig,
        steps: tuple[int, int],
        progress: Progress,
    ) -> None:
        """Gives the variables the values of the first of `steps`.

        What is of another run is refused, and another machine is told of, before a step is done.
        """
        self._session, self._task, self._progress = session, task, progress
        self._folder, self._steps, self._counts = config.ckpt_dir, steps, Counter[str]()
        (first, last), kept = steps, folder.usable_steps(config.ckpt_dir)
        check = functools.partial(resume.refuse_other_run, task.identity, config)
        restored = self._restored(first, check) if first else None
        self._manifests = {
            s: layout.read_manifest(self._folder, s) for s in kept if first < s <= last
        }
        self._check_manifests(resume.begin_with(restored, session, config, task), config)
        # Where the run went on, the step that is the task's last had no line for being that.
        self._last_due = task.last_step if kept[-1] <= task.last_step else 0
        self._log = os.path.join(self._folder, LOGS_FOLDER, METRICS_FILE)
        self._lines: dict[int, bytes] = {}
        for line in lines_of(self._log):
            if (step := step_of(line)) is not None:
                self._lines[step] = self._lines.get(step, b"") + line
        if not self._lines:
            logging.warning("%s has no lines: none is compared", self._log)
        elif first == 0 and task.logged_variables:
            self._compare_line(measured(session, task, 0))

    def _check_manifests(self, identity: Mapping[str, Any], config: RunConfig) -> None:
        moves: list[str] = []
        for step, found in self._manifests.items():
            prefix = layout.checkpoint_prefix(self._folder, step)
            resume.say_changes(identity, config, prefix, found)
            moves += resume.moves(found)
        if moves:
            told = ", ".join(dict.fromkeys(moves))
            logging.warning("equal bytes are not to be expected: %s", told)

    def _restored(
        self, step: int, check: Callable[[str, layout.Manifest], None] = lambda _, __: None
    ) -> Restored:
        try:
            return restore(self._folder, step, self._session.specs, check)
        except CheckpointError as error:
            prefix = layout.checkpoint_prefix(self._folder, step)
            raise CheckpointError(f"{prefix} cannot be compared: {error}") from error

    def after(self, step: int, values: Mapping[str, float], save_due: bool) -> None:
        """Compares what the folder holds of a step; DifferenceError where that is another."""
        del save_due  # What is there tells what was due.
        self._progress.step()
        said = self._manifests.get(step)
        is_due = due(step, self._task.log_every_steps, self._last_due)
        is_logged = bool(self._lines) and (is_due or step in self._lines)
        accuracy = None
        if is_logged or (said is not None and said.test_accuracy is not None):
            metrics = measured(self._session, self._task, step, values)
            accuracy = metrics.test_accuracy
            if is_logged:
                self._compare_line(metrics)
                self._progress.log(metrics)
        if step in self._manifests:
            self._compare_checkpoint(step, accuracy)

    def save(self, step: int, *, is_due: bool) -> None:
        """Nothing is saved."""

    def _compare_line(self, metrics: Metrics) -> None:
        expected, found = metrics.line().encode(), self._lines.get(metrics.step)
        if found is None:
            raise DifferenceError(f"{self._log} has no line of step {metrics.step}")
        if found != expected:
            here, again = (
                line[:_MOST_OF_A_LINE].decode(errors="replace").strip()
                for line in (found, expected)
            )
            raise DifferenceError(f"{self._log} has {here}, and training gives {again}")
        self._counts["lines"] += 1

    def _compare_checkpoint(self, step: int, accuracy: float | None) -> None:
        saved = self._restored(step)
        for name, value in self._session.variables().items():
            if said := _difference(saved.values[name], value):
                raise DifferenceError(f"{saved.prefix}: {name}{said}")
        if saved.manifest is not None:
            graph = layout.checkpoint_name(step) + layout.META_SUFFIX
            if saved.manifest.files[graph] != layout.digest(self._task.meta_graph):
                raise DifferenceError(f"{saved.prefix}.meta is not the graph that is trained")
            found = saved.manifest.test_accuracy
            if found not in (None, accuracy):
                raise DifferenceError(
                    f"{saved.prefix}.manifest says a test accuracy of {found}, and training gives "
                    f"{accuracy}"
                )
            self._counts["accuracies"] += found is not None

    def compared(self) -> str:
        """What was found to be equal."""
        first, last = self._steps
        return (
            f"{self._folder} has the bytes that training from step {first} to {last} gives; "
            f"compared: checkpoints {len(self._manifests)}, variables in each "
            f"{len(self._session.specs)}, lines of metrics {self._counts['lines']}, test "
            f"accuracies {self._counts['accuracies']}"
        )


def _difference(saved: Array, computed: Array) -> str:
    """Where the bytes of two values of one shape and dtype differ first; nothing where they do not.

    So 0.0 is not -0.0, and a NaN is equal to itself.
    """
    one, other = (
        np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8) for value in (saved, computed)
    )
    places = np.flatnonzero((one != other).any(axis=1))
    if not len(places):
        return ""
    at = [int(index) for index in np.unravel_index(places[0], saved.shape)]
    here, again = (value.reshape(-1)[places[0]] for value in (saved, computed))
    return (
        f"{at or ''} is {here!s}, and training gives {again!s}; of its {saved.size} numbers "
        f"{len(places)} differ"
    )
