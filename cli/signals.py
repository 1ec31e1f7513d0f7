"""The signals that ask a process to stop, and what they do outside of a script's own work.

A script imports this first, as Python makes a traceback of a SIGINT until there is a handler.
"""

import os
import signal
import sys
from contextlib import suppress


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
        if words:
            with suppress(OSError):
                os.write(2, words.encode())
        os._exit(128 + number)

    for number in stop_signals():
        signal.signal(number, end)


def exit_at_signals() -> list[int]:
    """From now on the first signal raises SystemExit, and none disturbs the tidying up.

    It is also put into the list that is returned: C++ that the exit comes upon while it makes an
    error for Python raises another one in its place.
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
