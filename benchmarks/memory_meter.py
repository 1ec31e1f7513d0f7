"""How much memory this process takes, sampled while it works (Linux: /proc/self/status)."""

import threading
from pathlib import Path
from typing import NamedTuple

_INTERVAL_SECS = 0.02
_STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    """Megabytes (10**6 bytes) in memory.

    Attributes:
      own: what only this process has (RssAnon): arrays, stacks, TensorFlow's buffers.
      mapped: of files that are mapped (RssFile): mostly TensorFlow's code. The page cache of files
        that are read is the system's and belongs to neither.
    """

    own: float
    mapped: float


def memory_now() -> Memory:
    """What the process takes at this moment."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))
    return Memory(own, mapped)


class MemoryMeter:
    """Samples the memory in a thread of its own from `with` to its end.

    Attributes:
      start: when it began.
      peak: the most since, of each of the two.
    """

    def __init__(self) -> None:
        self.start = self.peak = memory_now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-meter", daemon=True)

    def __enter__(self) -> "MemoryMeter":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL_SECS):
            now = memory_now()
            self.peak = Memory(max(self.peak.own, now.own), max(self.peak.mapped, now.mapped))
