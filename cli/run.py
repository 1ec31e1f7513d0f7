"""Runs a script: parses its flags, prints errors as one line, ends with the right exit code."""

import logging as standard_logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags, logging

from cli.command_line import CommandLine
from cli.signals import end_at_signals, exit_at_signals
from cli.supervisor import MEMORY_FLAG, Supervisor
from cli.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    exit_with_error,
    prepare_streams,
    printable,
    stdout_written_out,
    thread_variables_error,
)
from errors import UserError

_HELP_FLAGS = frozenset({"-h", "-help", "--help", "--helpfull", "--helpshort"})


def run(
    main: Callable[[Any], int | None],
    request: type,
    description: str | None,
    supervisor: Supervisor | None = None,
) -> NoReturn:
    """Parses `sys.argv`, calls `main` and exits: the last line of a script.

    Exit codes: 0 done (or what `main` returns), 1 failed, 2 usage, 129 SIGHUP, 130 SIGINT, 143
    SIGTERM. A `UserError` and an OSError are printed as one line; any other exception is a defect
    of ours and keeps its traceback.

    Args:
      main: the script's work, given the request; returns an exit code or None for 0.
      request: a dataclass of flags, see `cli.fields`; where it has a field `end_after`, that is the
        supervisor's.
      description: the script's docstring, shown by --help; None under `python -OO`.
      supervisor: has `main` run in a process of its own, so that a crash is one line as well. All
        scripts have one; a benchmark has none, which starts processes itself.
    """
    prepare_streams()
    line: CommandLine[Any] = CommandLine(request, description)
    try:
        with stdout_written_out():
            _take(line)
            _log_plain_lines_to_stderr()
            # Of damaged metadata in an image, whose pixels are told of where they are damaged.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            end_after = None
            if supervisor is None:
                exit_at_signals()
            else:
                is_limited = MEMORY_FLAG in line.values
                supervisor.start(line.values[MEMORY_FLAG].value if is_limited else 0)
                end_after = supervisor.end_after
            sys.exit(main(line.read(end_after=end_after)))
    except BrokenPipeError:
        # The reader of our output has gone (`predict.py | head`): nobody is left to be told.
        sys.exit(EXIT_FAILED)
    except (MemoryError, RuntimeError) as error:
        exit_with_error(_shortage(error, is_limited=MEMORY_FLAG in line.values), EXIT_FAILED)
    except (UserError, OSError) as error:
        exit_with_error(str(error), EXIT_FAILED)
    finally:
        end_at_signals()


def _shortage(error: MemoryError | RuntimeError, *, is_limited: bool) -> str:
    """What the system did not give; raises an error again that is of something else."""
    if isinstance(error, MemoryError):
        allowed = f", or more than --{MEMORY_FLAG} allows" if is_limited else ""
        return f"out of memory{allowed}: {error}".rstrip(": ")
    if str(error) != "can't start new thread":  # Python has no type for it.
        raise error
    return "the system starts no more threads: is it limited, as by `ulimit -u` or `ulimit -v`?"


def _take(line: CommandLine[Any]) -> None:
    """Takes the flags from `sys.argv`; exits where help is asked for, or something is wrong."""
    for argument in sys.argv[1:]:
        raw = os.fsencode(argument)
        if raw.decode(errors="ignore") != argument:
            escaped = raw.decode(errors="backslashreplace")
            exit_with_error(
                f"the argument {escaped} must be UTF-8, and the locale too, such as LC_ALL=C.UTF-8",
                EXIT_USAGE,
            )
    if _HELP_FLAGS.intersection(sys.argv[1:]):  # Before a check complains of a missing flag.
        print(line.help())
        sys.exit(0)
    try:
        line.take(sys.argv)
    except flags.Error as error:
        exit_with_error(f"{error} (see --help)", EXIT_USAGE)
    if wrong := thread_variables_error():
        exit_with_error(wrong, EXIT_USAGE)


class _PlainFormatter(standard_logging.Formatter):
    """A message as it is, on one line; from warnings on, with its level before it."""

    def format(self, record: standard_logging.LogRecord) -> str:
        message = printable(" ".join(record.getMessage().splitlines()))
        if record.levelno < standard_logging.WARNING:
            return message
        return f"{record.levelname.lower()}: {message}"


def _log_plain_lines_to_stderr() -> None:
    """Shows absl's log on stderr; absl's own handler would ask its global flags, unused here."""
    handler = standard_logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    logger.setLevel(standard_logging.INFO)
    logger.propagate = False
