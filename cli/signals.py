"""The signals that ask a process to stop, and what they do outside of a script's own work.

Imports next to nothing: a script imports it first, as Python turns a SIGINT into a traceback until
a handler of ours is there.
"""

import os
import signal
import sys


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM and, where there is one and it is not ignored as by nohup, SIGHUP."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, hangup)


def end_at_signals() -> None:
    """From now on a signal ends the process, with the exit code 128 + its number.

    For where nothing is begun that would need tidying. An exception would not do: raised in the
    midst of an import it may be swallowed there, and at the end of Python it is a traceback.
    """
    for number in stop_signals():
        signal.signal(number, lambda number, _: os._exit(128 + number))


def exit_at_signals() -> None:
    """From now on the first signal raises SystemExit, and none disturbs the tidying up.

    Whoever started this process passes on what it may have got already, such as a Ctrl-C.
    """

    def exit_once(number: int, _: object) -> None:
        for other in stop_signals():
            signal.signal(other, lambda *_: None)
        sys.exit(128 + number)

    for number in stop_signals():
        signal.signal(number, exit_once)
