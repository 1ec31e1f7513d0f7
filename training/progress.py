"""What a person sees of a run: a bar on a terminal, and the log lines above it."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

from training.metrics import Metrics


class Progress:
    """Writes to stderr, or another terminal: a bar where it is one, plain lines everywhere."""

    def __init__(
        self,
        start: int,
        last: int,
        batch_size: int,
        examples: str,
        terminal: TextIO | None = None,
    ) -> None:
        """Begins at step `start` of `last`.

        Args:
          start: updates done.
          last: the run's last step.
          batch_size: examples a step.
          examples: what the batches are made of, such as "images".
          terminal: where all this is written; None for stderr.
        """
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
        self.say(
            f"step {metrics.step}/{self._last}  {numbers}  "
            f"{rate:,.0f} {self._examples}/s  {_clock(left)} left"
        )

    def say(self, line: str) -> None:
        """Writes a line, above the bar where there is one."""
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
