"""SIGINT, SIGTERM and SIGHUP as a request that the training loop answers between two steps."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from cli.signals import stop_signals

ECHO_SECONDS = 0.5  # Who started the process may pass on a Ctrl-C that it was sent itself.


class StopSignals:
    """While entered, the first signal is noted and the second SIGINT ends the process at once.

    One that comes within `ECHO_SECONDS` of the first counts as the same.

    Attributes:
      received: the first signal's number; None while there was none.
    """

    def __init__(self) -> None:
        """Notes nothing yet: signals are caught from `__enter__` on."""
        self.received: int | None = None
        self._received_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python delivers signals to the main thread alone, and only it may say who takes them.
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._note) for number in stop_signals()
            }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            _say(b"\nstopping: saving the present step (Ctrl-C again stops at once)\n")
        elif number == signal.SIGINT and now > self._received_at + ECHO_SECONDS:
            # The checkpoints on disk are whole at any instant, so nothing has to be tidied.
            _say(b"\nstopped at once: the step under way is not saved\n")
            os._exit(128 + number)


def _say(line: bytes) -> None:
    """Writes to stderr if that can be written: what a handler raises would break off the step."""
    with suppress(OSError):
        os.write(2, line)
