"""What the campaigns share: processes, runs of the trainers, and what lasts of these."""

import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from train_cnn import CnnConfig
from train_cnn import train as train_cnn
from train_linear import LinearConfig
from train_linear import train as train_linear
from training.config import RunConfig

KEEP = 3
# The manifests hold the time, and are never the same.
LASTING = (".data-00000-of-00001", ".index", ".meta", "checkpoint")


def report(count: int, name: str, seed: int, run: "Callable[..., Counter[str]]") -> int:
    """Runs a campaign in a temporary folder and prints what was found; 1 if anything was lost."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        found = run(Path(folder), count, seed)
        print(f"{count} {name} in {time.monotonic() - started:.0f} s")
    for finding, times in sorted(found.items()):
        print(f"  {finding}: {times}")
    return 1 if any(finding.startswith("LOST") for finding in found) else 0


def fork(work: Callable[[], object], log: str = os.devnull) -> int:
    """Starts a process that does some work, with its output in a file; returns its number.

    No session may exist in this process yet: a fork has none of its threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 (the process ends here; the log tells its parent why)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)  # Whatever happens, the child does not go on as its parent.


def run_config(path: str, save_every: int, log_every: int, *, keep_best: bool = False) -> RunConfig:
    """A run in `path` that keeps KEEP checkpoints, and saves and logs every so many steps."""
    return RunConfig(
        path,
        save_every_steps=save_every,
        log_every_steps=log_every,
        max_to_keep=KEEP,
        keep_best=keep_best,
    )


def linear(path: str, steps: int, save_every: int, log_every: int) -> None:
    """Trains the line."""
    train_linear(LinearConfig(run_config(path, save_every, log_every), steps))


def cnn_on_ramp(path: str, steps: int, save_every: int, log_every: int) -> None:
    """Trains the CNN on ten images."""
    run = run_config(path, save_every, log_every)
    train_cnn(CnnConfig(run, data="ramp", train_steps=steps))


def lasting(path: Path) -> dict[str, bytes]:
    """Name -> content of the files of a run that must be equal at the end."""
    files = {p.name: p.read_bytes() for p in path.iterdir() if p.name.endswith(LASTING)}
    return files | {"metrics": (path / "logs" / "metrics.jsonl").read_bytes()}
