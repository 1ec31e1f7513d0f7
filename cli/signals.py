"""The signals that ask a process to stop: they end it, or its training after a step.

A script imports this first, as Python makes a traceback of a SIGINT until there is a handler.
"""

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress

ECHO_SECONDS = 0.5  # Who started the process may pass on a Ctrl-C that it was sent itself.


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM and, where there is one and it is not ignored as by nohup, SIGHUP."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, hangup)


def end_at_signals(words: str = "") -> None:
    """From now on a signal writes the words to stderr and ends the process, with 128 + its number.

    An exception would not do: an import may swallow it, and at the end of Python it is a traceback.
    """

    def end(number: int, _: object) -> None:
        _say(words)
        os._exit(128 + number)

    for number in stop_signals():
        signal.signal(number, end)


def exit_at_signals() -> list[int]:
    """From now on the first signal raises SystemExit, and none disturbs the tidying up.

    Its number also goes into the list returned: C++ code may raise an error in place of the exit.
    """
    came: list[int] = []

    def exit_once(number: int, _: object) -> None:
        came.append(number)
        for other in stop_signals():
            signal.signal(other, lambda *_: None)
        sys.exit(128 + number)

    for number in stop_signals():
        signal.signal(number, exit_once)
    return came


def leave_signals() -> None:
    """Leaves them to other threads: neither this one nor those that it starts take any."""
    if hasattr(signal, "pthread_sigmask"):  # Not on Windows.
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())


class StopSignals:
    """While entered, the first signal is noted, and a SIGINT after it ends the process at once.

    One that comes within `ECHO_SECONDS` of the first counts as the same.
    """

    def __init__(self, *, saves: bool = True) -> None:
        """Prepares for training; what saves nothing, an audit, is ended by the first signal."""
        self.received: int | None = None  # The first signal's number.
        self._saves, self._received_at = saves, 0.0
        self._given_back = ExitStack()  # Who took the signals before.

    def __enter__(self) -> "StopSignals":
        # Python delivers signals to the main thread alone, and only it may say who takes them.
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                before = signal.signal(number, self._note)
                self._given_back.callback(signal.signal, number, before)
        return self

    def __exit__(self, *error: object) -> None:
        self._given_back.close()

    def _note(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self._saves:
            os._exit(128 + number)
        if self.received is None:
            self.received, self._received_at = number, now
            _say("\nstopping after the present step (Ctrl-C again stops at once)\n")
        elif number == signal.SIGINT and now > self._received_at + ECHO_SECONDS:
            # The checkpoints on disk are whole at any instant, so nothing has to be tidied.
            _say("\nstopped at once: the step under way is not saved\n")
            os._exit(128 + number)


def _say(words: str) -> None:
    """Writes to stderr if that can be written: an error here would end the wait for a run."""
    with suppress(OSError):
        os.write(2, words.encode())
