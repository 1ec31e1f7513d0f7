"""SIGINT and SIGTERM as a request that the training loop answers between two steps."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first signal is noted and the second SIGINT ends the process at once.

    Attributes:
      received: the first signal's number; None while there was none.
    """

    def __init__(self) -> None:
        """Notes nothing yet: signals are caught from `__enter__` on."""
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python delivers signals to the main thread alone, and only it may say who takes them.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None and number == signal.SIGINT:
            # The checkpoints on disk are whole at any instant, so nothing has to be tidied.
            os.write(2, b"\nstopped at once: the step under way is not saved\n")
            os._exit(128 + number)
        if self.received is None:
            self.received = number
            os.write(2, b"\nstopping: saving the present step (Ctrl-C again stops at once)\n")
