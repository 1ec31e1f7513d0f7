"""Damages meta graphs in thousands of ways and predicts with each: it works, or is one line.

  python -m benchmarks.fuzz_campaign --mutations=10000 --seed=0

lists and predicts, in turn, from small checkpoints whose `.meta` was mutated. What must not be: an
interpreter that crashes, a hang, an exception that is none of a user's errors, a file that was
written, changed or deleted. Processes are forked before any session exists, each for a batch of
mutations, with a limit on time and memory. Exits 1 with the numbers of the defects; mutation 123
alone is `--first=123 --mutations=1` of the same seed, and --keep=folder leaves its file there.
"""

import os
import resource
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from absl import logging

from benchmarks.measuring import fork, report
from cli.fields import flag
from cli.run import limit_memory, run
from cli.terminal import import_tensorflow
from errors import UserError

if TYPE_CHECKING:
    from prediction.request import PredictConfig

BATCH = 100  # mutations a process
RUN_SECONDS = 3.0  # what a graph's run is given
HANG_SECONDS = 30.0  # after which a mutation counts as hung
MOST_BYTES = 4 * 2**30  # that a process may allocate

# Names in a campaign's folder.
_MODELS = "models"  # The whole checkpoints.
_WORK = "work"  # The checkpoint that a mutation is tried on.
_CWD = "cwd"  # An empty folder to be in.
_ROWS = "rows.npy"  # For --input.
LOG = "log"  # What the processes write to stderr.


@dataclass(frozen=True)
class Request:
    """What the campaign is asked for."""

    mutations: int = flag("How many.", 10_000, low=1)
    seed: int = flag("Draws the mutations.", 0, low=0)
    first: int = flag("Number of the first.", 0, low=0)
    keep: str | None = flag("Where the last file goes.", None)


def main(request: Request) -> int:
    """Runs the campaign and prints what was found."""
    import_tensorflow(intra_op_threads=1)
    logging.get_absl_logger().setLevel("ERROR")
    return report(request.mutations, "mutations", partial(run_campaign, request))


def run_campaign(request: Request, folder: Path) -> Counter[str]:
    """Tries the mutations `first`, `first` + 1 and so on of a seed; no session may exist yet.

    Returns:
      How often each outcome was seen; what must not be has its number, and DEFECT.
    """
    _prepare(folder)
    found: Counter[str] = Counter()
    number, end = request.first, request.first + request.mutations
    while number < end:
        numbers = range(number, min(number + BATCH, end))
        number = run_batch(folder, numbers, partial(_try, folder, request.seed), found)
    if request.keep:
        shutil.copytree(folder / _WORK, request.keep, dirs_exist_ok=True)
    return found


def _prepare(folder: Path) -> None:
    """The models are written by a process of their own, as that takes sessions."""
    import numpy as np

    from benchmarks.graph_mutations import ROWS, write_models

    for name in (_WORK, _CWD):
        (folder / name).mkdir()
    np.save(folder / _ROWS, ROWS)
    child = fork(partial(write_models, folder / _MODELS), str(folder / LOG))
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"the models cannot be written: {_last_lines(folder)}")


def run_batch(
    folder: Path, numbers: range, attempt: Callable[[int], str], found: Counter[str]
) -> int:
    """Tries some mutations in a process; returns the number of the first that is left to try.

    `attempt` tries one and returns the outcome, in a line; `found` is added to.
    """
    receiver, sender = Pipe(duplex=False)

    def work() -> None:
        limit_memory(MOST_BYTES)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in numbers:
            sender.send(attempt(number))

    child = fork(work, str(folder / LOG))
    sender.close()
    outcomes: list[str] = []
    with receiver, suppress(EOFError):  # At the process's end.
        while receiver.poll(HANG_SECONDS):
            outcomes.append(receiver.recv())
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if len(outcomes) < len(numbers):
        if status == -signal.SIGALRM:
            outcomes.append("ended by the time limit")
        else:
            kind = "hang" if status == -signal.SIGKILL else f"crash, exit code {status}"
            outcomes.append(f"DEFECT {kind}: {_last_lines(folder)}")
    for number, outcome in zip(numbers, outcomes, strict=False):
        found[f"mutation {number}: {outcome}" if "DEFECT" in outcome else outcome] += 1
    return numbers.start + len(outcomes)


def _last_lines(folder: Path) -> str:
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    return " | ".join(line[:300] for line in lines[-4:])


def _try(folder: Path, seed: int, number: int) -> str:
    """Lists and predicts with one mutation; returns the outcome in one line."""
    from benchmarks.graph_mutations import mutate
    from prediction.request import PredictConfig

    os.chdir(folder / _CWD)
    draw = Random(f"{seed}/{number}")  # noqa: S311 (damage, not secrets)
    work = folder / _WORK
    shutil.rmtree(work)
    shutil.copytree(draw.choice(sorted((folder / _MODELS).iterdir())), work)
    meta = work / "m.meta"
    meta.write_bytes(mutate(meta.read_bytes(), draw, str(folder / _CWD / "victim")))
    before = snapshot(folder)
    config = PredictConfig(
        str(meta),
        fetch=draw.choice(([], ["y"])),
        input=[str(folder / _ROWS)],
        time_limit=RUN_SECONDS,
        end_after=_end_after,
    )
    listed = _outcome("listed", replace(config, list=True))
    predicted = _outcome("predicted", config)
    if snapshot(folder) != before:
        return "DEFECT files: written, changed or deleted"
    return next((o for o in (listed, predicted) if "DEFECT" in o), f"{listed}, {predicted}")


def _end_after(seconds: float, line: str) -> None:
    """As the supervisor of predict.py ends a process, whatever it does."""
    del line
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _outcome(done: str, config: "PredictConfig") -> str:
    from prediction.evaluation import predict

    try:
        predict(config)
    except (UserError, OSError, MemoryError):  # What `cli.run.run` makes a line of.
        return f"not {done}"
    except Exception as error:  # noqa: BLE001 (that there is any is the finding)
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-12:]]
        text = " ".join(str(error).split())[:300]
        return f"DEFECT exception: {type(error).__name__}: {text} [{' '.join(places)}]"
    return done


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file near the checkpoint but the log, with its bytes and its time in nanoseconds."""
    places = (folder, folder / _WORK, folder / _CWD)
    files = (file for place in places for file in place.iterdir() if file.name != LOG)
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


if __name__ == "__main__":
    run(main, Request, __doc__)
