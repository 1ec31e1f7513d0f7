"""The one training loop: from where the folder stands to the last step, whatever the model.

SIGINT, SIGTERM and SIGHUP are a request that it answers between two steps.
"""

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import logging

import file_io
from checkpoints import folder, layout
from checkpoints.lock import FolderLock
from checkpoints.writer import CheckpointWriter, RunRecord
from cli.signals import StopSignals, leave_signals
from cli.terminal import ONEDNN_VARIABLE, is_off
from errors import TrainingError
from training import resume
from training.config import RunConfig
from training.metrics import Metrics, MetricsLog, Profile, Progress, refusals_told
from training.task import Alone, GraphSession, Task, digest_of, whole_session

if TYPE_CHECKING:
    from training.replay import Witness
    from training.team import Team

_LOOK_SECONDS = 0.1  # How soon a signal is heeded at the latest.
_FLAGS_HEAD = "# The flags of this run: with --flagfile they repeat it.\n"


class Outcome(NamedTuple):
    """How a run ended."""

    step: int  # Updates done.
    prefix: str  # The checkpoint of that step.
    exit_code: int  # 0 when the run is finished, 128 + the signal that stopped it.
    variables: dict[str, np.ndarray[Any, Any]]  # The values that were saved last, by name.
    verdict: str | None = None  # What a --replay has found; its exit code is 1 if that differs.


def train(task: Task, config: RunConfig) -> Outcome:
    """Trains to the task's last step; continues from the folder's newest good checkpoint.

    Where several workers train, worker 0 has the folder, and gives the others what they begin with.
    With `config.replay`, nothing is trained but in memory; see `training.replay.replay`.

    Raises:
      CheckpointError: no checkpoint of the folder is good, the last one could not be saved, or a
        variable is no number.
      TrainingError: the folder is of another run or cannot be written, the loss is no number, the
        best is to be kept and there is nothing to test on, or another worker has failed.
    """
    if config.shards > 1:
        task = task._replace(identity={**task.identity, "shards": config.shards})
    if config.bfloat16:
        task = task._replace(identity={**task.identity, "precision": config.precision})
    work: Callable[..., Outcome] = _train
    if config.replay is None:
        _say_what_is_slow(config)
    else:
        from training.replay import replay as work  # It is made of what is here, and few need it.
    # TensorFlow 2.21 breaks the process's memory where a signal comes to a thread that multiplies
    # matrices. So the main thread takes them, and only waits. It looks up often: one that the
    # system hands to another thread does not wake it.
    with (
        ThreadPoolExecutor(1, "training", leave_signals) as executor,
        StopSignals(saves=config.replay is None) as stop,
    ):
        ended = executor.submit(work, task, config, lambda: stop.received)
        while not wait([ended], _LOOK_SECONDS).done:
            pass
        return ended.result()


def _train(task: Task, config: RunConfig, stop: Callable[[], int | None]) -> Outcome:
    with open_session(task, config, stop) as (session, team):
        if team.place.rank == 0:
            step = _lead(session, task, config, team)
        else:
            step = _follow(session, task, config, team)
        prefix = layout.checkpoint_prefix(config.ckpt_dir, step)
        if step >= task.last_step or not team.stopping:
            logging.info("finished: %s, step %d of %d", prefix, step, task.last_step)
            averages = ["--weights=ema"] if session.averages else []
            logging.info("predict with: %s", _prediction(prefix, [*task.predict_with, *averages]))
            exit_code = 0
        else:
            logging.info("stopped at step %d of %d: %s", step, task.last_step, prefix)
            exit_code = 128 + (team.stopping or 0)
        variables = {name: np.array(value) for name, value in session.variables().items()}
        return Outcome(step, prefix, exit_code, variables)


def open_session(
    task: Task, config: RunConfig, stop: Callable[[], int | None]
) -> "AbstractContextManager[tuple[GraphSession, Alone | Team]]":
    """What makes the steps, and who shares them: of whole batches alone, or of shards.

    `stop` gives the signal that asks this process to stop, None while there is none.
    """
    if config.shards == 1:
        return whole_session(task, config, stop)
    from training.team import sharded_session  # Few runs need it.

    return sharded_session(task, config, stop)


def _say_what_is_slow(config: RunConfig) -> None:
    """Warns where the run is slower than this machine can do, or than was asked for."""
    given = resume.environment()
    if is_off(given["onednn"]):
        off = f"{ONEDNN_VARIABLE}={given['onednn']} leaves out TensorFlow's faster kernels"
        logging.warning("%s: training may take three times as long", off)
    if config.bfloat16 and not {*resume.BFLOAT16_FEATURES} & {*given["processor"].split()}:
        logging.warning(
            "--precision=bf16 is no faster here: this processor has no instructions for it"
        )


def _prediction(prefix: str, flags: Sequence[str]) -> str:
    """The command line that predicts with a checkpoint, from the folder that the user is in."""
    script = Path(__file__).resolve().parent.parent / "predict.py"
    if script.is_relative_to(Path.cwd()):
        script = script.relative_to(Path.cwd())
    return shlex.join(["python", str(script), f"--meta={prefix}{layout.META_SUFFIX}", *flags])


def _lead(session: GraphSession, task: Task, config: RunConfig, team: "Alone | Team") -> int:
    """Trains as worker 0; returns the step it ended at, whose checkpoint is committed."""
    if config.keep_best and task.test_batches is None:
        raise TrainingError(
            f"--keep_best needs {task.examples} to test on, and found none: hold some out, such as "
            "with --validation_fraction=0.1"
        )
    with refusals_told(f"--ckpt_dir={config.ckpt_dir} cannot be made"):
        file_io.make_folder(config.ckpt_dir)
    with FolderLock(config.ckpt_dir) as lock:
        start = resume.start(session, config, task)
        if task.write_data is not None:
            task.write_data()
        team.begin(task)
        if start.step >= task.last_step or _is_over(task, config, team, start.step, start.best):
            return start.step
        _write_flags(config)
        with ExitStack() as stack:
            keeper = Keeper(session, task, config, start, lock, stack)
            step = train_steps(session, task, config, team, start.step, keeper)
        if not folder.is_whole(config.ckpt_dir, step):
            raise TrainingError(
                f"{layout.checkpoint_prefix(config.ckpt_dir, step)} was saved and is not there any "
                "more: someone has deleted it while the run went on"
            )
        return step


def _write_flags(config: RunConfig) -> None:
    """Puts the flags of the run into its folder; a file of that name that is not ours stays."""
    path = os.path.join(config.ckpt_dir, layout.FLAGS_FILE)
    content = (_FLAGS_HEAD + config.flags).encode()
    with refusals_told(f"{path} cannot be written"):
        found = file_io.content_of(path)
        if not config.flags or found == content:
            return
        if found is not None and not found.startswith(_FLAGS_HEAD.encode()):
            logging.warning("%s is not ours: it is now %s", path, file_io.set_aside(path))
        file_io.replace_file(path, content)


def _follow(session: GraphSession, task: Task, config: RunConfig, team: "Alone | Team") -> int:
    """Trains as another worker, with the values that worker 0 gives; returns where it ended."""
    team.begin(task)
    start = int(session.variables()[resume.STEP])
    if start >= task.last_step or _is_over(task, config, team, start):
        return start
    return train_steps(session, task, config, team, start, None)


def train_steps(
    session: GraphSession,
    task: Task,
    config: RunConfig,
    team: "Alone | Team",
    start: int,
    keeper: "Keeper | Witness | None",
) -> int:
    """Trains from step `start` on; returns the step it ended at."""
    last, save_every = task.last_step, task.save_interval(config.save_every_steps)
    step = start
    with closing(task.batches(start, last)) as batches:
        for step, batch in enumerate(batches, start + 1):
            values = session.train_step(batch)
            save_due = due(step, save_every, last)
            if keeper is not None:
                keeper.after(step, values, save_due)
            stopping = team.stopping  # Read once: what is saved is where it stops.
            if save_due or stopping:
                team.compare(lambda: digest_of(session.variables()), f"its model at step {step}")
                if keeper is not None:
                    keeper.save(step, is_due=save_due)
            if stopping:
                break
            if save_due and _is_over(task, config, team, step, keeper.best if keeper else None):
                break
    return step


def _is_over(
    task: Task, config: RunConfig, team: "Alone | Team", step: int, best: folder.Saved | None = None
) -> bool:
    """Whether --stop_after ends the run at this step; worker 0, which has the best, tells.

    It follows from the best's step, which the folder has: there was an evaluation at each save.
    """
    if config.stop_after is None:
        return False
    every = task.save_interval(config.save_every_steps)
    waited = step // every - best.step // every if best else 0
    if best and waited >= config.stop_after:
        line = "--stop_after=%d: no save since step %d has a better test accuracy than its %.4f"
        logging.info(line, config.stop_after, best.step, best.test_accuracy)
    return bool(team.share(b"over" if waited >= config.stop_after else b""))


class Keeper:
    """What is kept of the steps: metrics, checkpoints, and what is shown of both."""

    def __init__(
        self,
        session: GraphSession,
        task: Task,
        config: RunConfig,
        start: resume.Start,
        lock: FolderLock,
        stack: ExitStack,
    ) -> None:
        """Opens what is written, which the stack closes; `start` is where the run goes on."""
        self._session, self._task, self._config = session, task, config
        self._test_accuracy: float | None = None  # After the present step.
        self.best = start.best  # Of the saves that were due.
        path, step = config.ckpt_dir, start.step
        log = MetricsLog(path, task.model.graph, step, task.log_every_steps, start.identity)
        self._log = stack.enter_context(log)
        # The lines of metrics before a checkpoint are made durable with it.
        record = RunRecord(task.meta_graph, start.identity, resume.environment(), (log.path,))
        before = layout.previous_manifest(path, step)
        self._writer = stack.enter_context(
            CheckpointWriter(path, session.specs, record, start.retention, lock, before)
        )
        self._profile = Profile(path, config.profile_steps)
        stack.callback(self._profile.close)
        self._profile.after(step)
        self._progress = stack.enter_context(Progress(task, step, config.terminal))
        self._writer.check_space()
        if step == 0 and task.logged_variables:
            log.write(measured(session, task, 0))

    def after(self, step: int, values: Mapping[str, float], save_due: bool) -> None:
        """Tests and logs after a step, where it is due.

        TrainingError where the loss is no number.
        """
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss is {values['loss']} at step {step}: the checkpoints before it are "
                "kept; try a lower --learning_rate"
            )
        self._profile.after(step)
        self._progress.step()
        log_due = due(step, self._task.log_every_steps, self._task.last_step)
        self._test_accuracy = None
        if log_due or (save_due and self._config.keep_best):
            metrics = measured(self._session, self._task, step, values)
            self._test_accuracy = metrics.test_accuracy
            if log_due:
                self._log.write(metrics)
                self._progress.log(metrics)
        every = self._config.histograms_every_steps
        if every is not None and due(step, every, self._task.last_step):
            self._log.write_histograms(step, self._session.variables())

    def save(self, step: int, *, is_due: bool) -> None:
        """Hands a checkpoint to the writer, and before it the lines of metrics up to it."""
        self._log.flush()
        # Which one is the best must not depend on where a run was interrupted.
        accuracy = self._test_accuracy if is_due else None
        self._writer.save(step, self._session.variables(), accuracy)
        candidates = [*filter(None, [self.best]), folder.Saved(step, test_accuracy=accuracy)]
        self.best = next(iter(folder.best_first(candidates)), None)


def measured(
    session: GraphSession, task: Task, step: int, values: Mapping[str, Any] | None = None
) -> Metrics:
    """What the log has of a step, which gave `values`; without them, of the start of a run."""
    held = session.variables() if task.logged_variables else {}
    variables = {name: float(held[name].item()) for name in task.logged_variables}
    if values is None or task.test_batches is None:
        return Metrics(step, **(values or {}), variables=variables)
    accuracy, confusion = session.evaluate(task.test_batches())
    return Metrics(step, **values, test_accuracy=accuracy, variables=variables, confusion=confusion)


def due(step: int, every: int | Fraction, last: int) -> bool:
    """Whether something is to happen after `step` updates: every `every`, and after the last.

    Of an interval that is not whole, such as an epoch of 468.75 steps, it is the first step at or
    after each multiple: 469, 938, 1407, 1875.
    """
    return step // every > (step - 1) // every or step == last
