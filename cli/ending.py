"""How a script says what went wrong, and ends: one line on stderr and an exit code."""

import os
import sys
from typing import NoReturn

from cli.printing import printable
from cli.standard_streams import drop_stdout

EXIT_FAILED = 1
EXIT_USAGE = 2


def exit_with_error(message: str, code: int) -> NoReturn:
    """Exits with an error line."""
    _print_error(message)
    sys.exit(code)


def end_at_once(message: str) -> NoReturn:
    """Ends the process with an error line while a thread is busy, which no exception would."""
    _print_error(message)
    os._exit(EXIT_FAILED)


def print_result(line: str, exit_code: int) -> int:
    """Prints a trainer's result and returns its exit code.

    Of a run that a signal has stopped (an exit code that is not 0), the code is what counts: the
    same Ctrl-C may have ended the reader, as of `train_cnn.py | tee log`.

    Raises:
      OSError: the run is finished, and its result cannot be printed.
    """
    try:
        print(line, flush=True)
    except OSError:
        if not exit_code:
            raise
        drop_stdout()
    return exit_code


def _print_error(message: str) -> None:
    line = printable(" ".join(message.split()))
    print(f"{os.path.basename(sys.argv[0])}: error: {line}", file=sys.stderr, flush=True)
