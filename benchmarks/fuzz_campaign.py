"""Damages meta graphs in thousands of ways and predicts with each: it works, or is one line.

  python -m benchmarks.fuzz_campaign --mutations=10000 --seed=0

lists and predicts, in turn, from small checkpoints whose `.meta` was mutated. What must not be: an
interpreter that crashes, a hang, an exception that is none of a user's errors, a file that was
written, changed or deleted. Processes are forked before any session exists, each for a batch of
mutations, with a limit on time and memory. Exits 1 with the numbers of the defects; mutation 123
alone is `--first=123 --mutations=1` of the same seed, and --keep=folder leaves its file there.
"""

import dataclasses
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

from absl import logging

from benchmarks.measuring import fork
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

BATCH = 100  # mutations a process
RUN_SECONDS = 3.0  # what a graph's run is given
HANG_SECONDS = 30.0  # after which a mutation counts as hung
MORE_BYTES = 4 * 2**30  # of address space, beyond what TensorFlow has after its import


class Results(NamedTuple):
    """How often each outcome was seen, and a line for each defect, with the mutation's number."""

    outcomes: Counter[str]
    defects: list[str]


class Place(NamedTuple):
    """Where a campaign works."""

    models: Path  # The whole checkpoints.
    work: Path  # The checkpoint that a mutation is tried on.
    cwd: Path  # An empty folder to be in.
    rows: Path  # A .npy file for --input.
    log: Path  # What the processes write to stderr.


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
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        found = run_campaign(Path(folder), request.first, request.mutations, request.seed)
        if request.keep:
            shutil.copytree(Path(folder) / "work", request.keep, dirs_exist_ok=True)
    print(f"{request.mutations} mutations in {time.monotonic() - started:.0f} s")
    for outcome, count in sorted(found.outcomes.items()):
        print(f"  {outcome}: {count}")
    for defect in found.defects:
        print(defect)
    return 1 if found.defects else 0


def run_campaign(folder: Path, first: int, mutations: int, seed: int) -> Results:
    """Tries the mutations `first`, `first` + 1 and so on of a seed; no session may exist yet."""
    place = _prepare(folder)
    results = Results(Counter(), [])
    number, end = first, first + mutations
    while number < end:
        stop = min(number + BATCH, end)
        number = run_batch(place, range(number, stop), partial(_try, place, seed), results)
    return results


def make_place(folder: Path) -> Place:
    """A place in a folder, with nothing in it yet."""
    place = Place(*(folder / name for name in ("models", "work", "cwd", "rows.npy", "log")))
    place.cwd.mkdir()
    return place


def _prepare(folder: Path) -> Place:
    """The models are written by a process of their own, as that takes sessions."""
    import numpy as np

    from benchmarks.graph_mutations import ROWS, write_models

    place = make_place(folder)
    np.save(place.rows, ROWS)
    child, read_end = _start(place, lambda _: write_models(place.models))
    os.close(read_end)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise RuntimeError(f"the models cannot be written: {_last_lines(place.log)}")
    return place


def _start(place: Place, work: Callable[[int], None]) -> tuple[int, int]:
    """Starts a process, whose stderr goes to the log; returns its number and a pipe from it."""
    read_end, write_end = os.pipe()

    def work_there() -> None:
        os.chdir(place.cwd)
        work(write_end)

    child = fork(work_there, str(place.log))
    os.close(write_end)
    return child, read_end


def run_batch(place: Place, numbers: range, attempt: Callable[[int], str], results: Results) -> int:
    """Tries some mutations in a process; returns the number of the first that is left to try.

    `attempt` tries one and returns the outcome, in a line; `results` are added to.
    """

    def work(write_end: int) -> None:
        _limit_memory()
        for number in numbers:
            os.write(write_end, (attempt(number) + "\n").encode())

    child, read_end = _start(place, work)
    number = numbers.start
    for outcome in _lines(read_end):
        if outcome is None:
            os.kill(child, signal.SIGKILL)
            break
        results.outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("DEFECT"):
            results.defects.append(f"mutation {number}: {outcome}")
        number += 1
    os.close(read_end)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number == numbers.stop:
        return number
    if status == -signal.SIGALRM:
        results.outcomes["ended by the time limit"] += 1
        return number + 1
    kind = "DEFECT hang" if status == -signal.SIGKILL else f"DEFECT crash, exit code {status}"
    results.outcomes[kind] += 1
    results.defects.append(f"mutation {number}: {kind}: {_last_lines(place.log)}")
    return number + 1


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lines(read_end: int) -> Iterator[str | None]:
    """The lines that a process writes; None, at last, where it takes too long over one."""
    rest = b""
    while select.select([read_end], [], [], HANG_SECONDS)[0]:
        content = os.read(read_end, 65536)
        if not content:
            return
        *lines, rest = (rest + content).split(b"\n")
        yield from (line.decode() for line in lines)
    yield None


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return " | ".join(line[:300] for line in lines[-4:])


def _try(place: Place, seed: int, number: int) -> str:
    """Lists and predicts with one mutation; returns the outcome in one line."""
    from benchmarks.graph_mutations import mutate
    from prediction.request import PredictConfig

    draw = Random(f"{seed}/{number}")  # noqa: S311 (damage, not secrets)
    shutil.rmtree(place.work, ignore_errors=True)
    model = draw.choice(sorted(place.models.iterdir()))
    shutil.copytree(model, place.work)
    meta = place.work / "m.meta"
    meta.write_bytes(mutate(meta.read_bytes(), draw, str(place.cwd / "victim")))
    before = snapshot(place)
    fetch = draw.choice(([], ["y"]))
    config = PredictConfig(
        str(meta),
        fetch=fetch,
        input=[str(place.rows)],
        time_limit=RUN_SECONDS,
        end_after=_end_after,
    )
    listed = _outcome("listed", dataclasses.replace(config, list=True))
    predicted = _outcome("predicted", config)
    if snapshot(place) != before:
        return "DEFECT files: written, changed or deleted"
    return next((o for o in (listed, predicted) if "DEFECT" in o), f"{listed}, {predicted}")


def _end_after(seconds: float, line: str) -> None:
    """As the supervisor of predict.py ends a process, whatever it does."""
    del line
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _outcome(done: str, config: object) -> str:
    from errors import CheckpointError, DataError, PredictionError
    from prediction.evaluation import predict

    try:
        predict(config)  # type: ignore[arg-type]
    except (CheckpointError, DataError, PredictionError, OSError):
        return f"not {done}"
    except Exception as error:  # noqa: BLE001 (that there is any is the finding)
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-12:]]
        text = " ".join(str(error).split())[:300]
        return f"DEFECT exception: {type(error).__name__}: {text} [{' '.join(places)}]"
    return done


def snapshot(place: Place) -> dict[str, tuple[int, int]]:
    """Every file near the checkpoint but the log, with its bytes and its time in nanoseconds."""
    folders = (place.work.parent, place.work, place.cwd)
    files = (file for folder in folders for file in folder.iterdir() if file != place.log)
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


if __name__ == "__main__":
    run(main, Request, __doc__)
