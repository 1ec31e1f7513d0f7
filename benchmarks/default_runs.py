"""What the default run of the CNN learns, from several seeds; or the documents' pictures of runs.

    python -m benchmarks.default_runs --seeds=10

trains `python train_cnn.py --seed=0`, `--seed=1`, ... in this process, and exits with 1 if one of
them stays below 0.97 test accuracy.

    python -m benchmarks.default_runs --pictures=docs/pictures --kills=20

makes the pictures anew: the loss of a run that nothing disturbs and of the same run, killed so many
times; the path of (w, b) over the loss of the line; the confusion and the worst mistakes of the
default run. It exits with 1 if the killed run is not the unbroken one.
"""

import json
import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import CNN, LINE, fork, log_lines, seconds
from cli.fields import flag, parse
from cli.run import run
from cli.terminal import import_tensorflow
from training.config import BFLOAT16, FLOAT32

_ASKED_FOR = 0.97
_STEPS = 200  # of a default run
_PICTURES = ("killed", "line", "confusion", "mistakes")
# A log line and a checkpoint often enough to see where a run was killed.
_WATCHED = CNN._replace(flags=("--log_every_steps=2", "--save_every_steps=2"))


@dataclass(frozen=True)
class Request:
    """How many runs; or where the pictures go."""

    seeds: int = flag("Runs, from the seeds 0, 1, ...", 10, low=1)
    precision: str = flag("As of train_cnn.py.", FLOAT32, choices=(FLOAT32, BFLOAT16))
    pictures: str | None = flag("Makes the pictures, in this folder.", None, path=True)
    kills: int = flag("How often the run of the second curve is killed.", 20, low=1)


def main(request: Request) -> int:
    """Prints the accuracy of each run, or makes the pictures."""
    import_tensorflow()
    if request.pictures is None:
        return _learn(request)
    folder, before = Path(request.pictures).resolve(), Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        os.chdir(runs)  # So that the pictures name no folder but the runs'.
        try:
            return _draw(folder, request.kills)
        finally:
            os.chdir(before)


def _learn(request: Request) -> int:
    from data import named

    numbers = [*named.TRAIN_SHAPES, *named.TEST_SHAPES]
    drawing = statistics.median(seconds(lambda: named.shape_examples(numbers)) for _ in range(5))
    print(f"4,800 images drawn in {drawing:.2f} s")
    accuracies = []
    for seed in range(request.seeds):
        with tempfile.TemporaryDirectory() as folder:
            CNN.train(folder, f"--seed={seed}", f"--precision={request.precision}")
            accuracies.append(float(json.loads(log_lines(folder)[-1])["test_accuracy"]))
        print(f"seed {seed}: test accuracy {accuracies[-1]:.4f}", flush=True)
    print(f"least {min(accuracies):.4f} (at least {_ASKED_FOR})")
    return 0 if min(accuracies) >= _ASKED_FOR else 1


def _draw(folder: Path, kills: int) -> int:
    """Trains, in processes of their own, and draws."""
    os.waitpid(fork(partial(LINE.train, "model")), 0)
    os.waitpid(fork(partial(_WATCHED.train, "model1")), 0)
    steps = _kill("killed", kills)
    if log_lines("model1") != log_lines("killed"):
        print("LOST: the killed run has another loss than the unbroken one")
        return 1
    _draw_losses("model1", "killed", steps, folder / "killed.png")
    _plot("line", "--run=model", f"--output={folder}/line.png")
    _plot("confusion", "--meta=model1", f"--output={folder}/confusion.png")
    _plot("mistakes", "--meta=model1", "--most=4", f"--output={folder}/mistakes.png")
    for picture in (folder / f"{name}.png" for name in _PICTURES):
        Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)
    return 0


def _kill(path: str, kills: int) -> list[int]:
    """Trains, kills the run so many times on its way, and trains it to its end.

    Returns:
      The last step in the log at each kill.
    """
    draw, found = np.random.default_rng(0), list[int]()
    for number in range(kills):
        child = fork(partial(_WATCHED.train, path))
        due = _STEPS * (number + draw.random()) / (kills + 1)
        while _last_step(path) < due:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.append(_last_step(path))
    os.waitpid(fork(partial(_WATCHED.train, path)), 0)
    return found


def _last_step(path: str) -> int:
    """The last step that a run's log has so far."""
    from training.metrics import step_of

    return max((step_of(line) or 0 for line in log_lines(path)), default=0)


def _draw_losses(unbroken: str, killed: str, kills: list[int], output: Path) -> None:
    from tools.plotting import new_figure, read_run, render, style

    with style():
        figure = new_figure(8, 3)
        axes = figure.subplots()
        for path, label, width, alpha in (
            (unbroken, "never interrupted", 5.0, 0.4),
            (killed, f"killed {len(kills)} times with SIGKILL", 1.2, 1.0),
        ):
            axes.plot(*read_run(path).series["loss"], label=label, linewidth=width, alpha=alpha)
        for step in kills:
            axes.axvline(step, color="grey", alpha=0.3, linewidth=0.8)
        axes.plot([], [], color="grey", alpha=0.3, linewidth=0.8, label="a kill")
        axes.set(xlabel="step (updates done)", ylabel="loss", ylim=(0, None))
        axes.set_title("The same loss, to the last bit")
        axes.legend()
        output.write_bytes(render(figure, str(output)))


def _plot(*arguments: str) -> None:
    from tools import plot

    plot.main(parse(plot.PlotConfig, ["plot", *arguments, "--overwrite"], plot.__doc__))


if __name__ == "__main__":
    run(main, Request, __doc__)
