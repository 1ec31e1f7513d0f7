"""Makes the pictures of the documents anew, in docs/pictures.

    python -m benchmarks.pictures --kills=20

The loss of a run that nothing disturbs and of the same run, killed so many times; the path of
(w, b) over the loss of the line; the confusion and the worst mistakes of the default run.
"""

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import fork, log_lines, train_line, train_network
from cli.fields import flag, parse
from cli.run import run
from cli.terminal import import_tensorflow

_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"


@dataclass(frozen=True)
class Request:
    """How often a run is killed, and where the pictures go."""

    kills: int = flag("How often the run of the second curve is killed.", 20, low=1)
    output: str = flag("The folder of the pictures.", str(_FOLDER), path=True)


def main(request: Request) -> int:
    """Trains, in processes of their own, and draws; 1 if the killed run is not the unbroken one."""
    import_tensorflow()
    folder = Path(request.output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as runs:
        os.chdir(runs)  # So that the pictures name no folder but the runs'.
        try:
            os.waitpid(fork(lambda: train_line("--ckpt_dir=model")), 0)
            os.waitpid(fork(lambda: _cnn("model1")), 0)
            steps = _kill("killed", request.kills)
            if log_lines("model1") != log_lines("killed"):
                print("LOST: the killed run has another loss than the unbroken one")
                return 1
            _draw_losses("model1", "killed", steps, folder / "killed.png")
            _plot("line", "--run=model", f"--output={folder}/line.png")
            _plot("confusion", "--meta=model1", f"--output={folder}/confusion.png")
            _plot("mistakes", "--meta=model1", "--most=4", f"--output={folder}/mistakes.png")
        finally:
            os.chdir(before)
    for picture in folder.glob("*.png"):
        Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)
    return 0


def _cnn(path: str) -> None:
    """The default run, with a log line and a checkpoint often enough to see where it was killed."""
    train_network(f"--ckpt_dir={path}", "--log_every_steps=2", "--save_every_steps=2")


def _last_step(path: str) -> int:
    """The last step that a run's log has so far."""
    from training.metrics import step_of

    return max((step_of(line) or 0 for line in log_lines(path)), default=0)


def _kill(path: str, kills: int) -> list[int]:
    """Trains, kills the run so many times on its way, and trains it to its end.

    Returns:
      The last step in the log at each kill.
    """
    draw, found = np.random.default_rng(0), list[int]()
    for number in range(kills):
        child = fork(lambda: _cnn(path))
        due = 200 * (number + draw.random()) / (kills + 1)
        while _last_step(path) < due:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.append(_last_step(path))
    os.waitpid(fork(lambda: _cnn(path)), 0)
    return found


def _draw_losses(unbroken: str, killed: str, kills: list[int], output: Path) -> None:
    from tools.plotting import new_figure, read_run, render, style

    with style():
        figure = new_figure(8, 3)
        axes = figure.subplots()
        for path, label, width, alpha in (
            (unbroken, "never interrupted", 5.0, 0.4),
            (killed, f"killed {len(kills)} times with SIGKILL", 1.2, 1.0),
        ):
            steps, values = read_run(path).series["loss"]
            axes.plot(steps, values, label=label, linewidth=width, alpha=alpha)
        for step in kills:
            axes.axvline(step, color="grey", alpha=0.3, linewidth=0.8)
        axes.plot([], [], color="grey", alpha=0.3, linewidth=0.8, label="a kill")
        axes.set_xlabel("step (updates done)")
        axes.set_ylabel("loss")
        axes.set_ylim(0, None)
        axes.set_title("The same loss, to the last bit")
        axes.legend()
        output.write_bytes(render(figure, str(output)))


def _plot(*arguments: str) -> None:
    from tools import plot

    plot.main(parse(plot.PlotConfig, ["plot", *arguments, "--overwrite"], plot.__doc__))


if __name__ == "__main__":
    run(main, Request, __doc__)
