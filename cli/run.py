"""Runs a script: parses its flags, prints errors as one line, ends with the right exit code."""

import logging as standard_logging
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from absl import flags, logging

from cli.ending import EXIT_FAILED, EXIT_USAGE, exit_with_error
from cli.printing import printable
from cli.standard_streams import fill_closed_streams, stdout_written_out
from cli.supervisor import MEMORY_FLAG, Supervisor

_HELP_FLAGS = frozenset({"-h", "-help", "--help", "--helpfull", "--helpshort"})


def run(
    main: Callable[[flags.FlagValues], int | None],
    define_flags: Callable[[flags.FlagValues], None],
    description: str,
    user_errors: tuple[type[Exception], ...] = (),
    supervisor: Supervisor | None = None,
    positional: Sequence[str] = (),
) -> NoReturn:
    """Parses `sys.argv`, calls `main` and exits: the last line of a script.

    Exit codes: 0 done (or what `main` returns), 1 failed, 2 usage, 130 SIGINT, 143 SIGTERM.

    Args:
      main: the script's work, given the parsed flags; returns an exit code or None for 0.
      define_flags: defines the script's flags in the values it is given. They are the script's
        own, not absl's global ones, so importing a script has no effect.
      description: the script's docstring, shown by --help.
      user_errors: the exceptions that are a user's to mend; they and OSError are printed as one
        line. Any other exception is a defect of ours and keeps its traceback.
      supervisor: has `main` run in a process of its own, so that a crash is one line as well. For
        a script that reads what strangers made; its flag is added to the script's.
      positional: the flags that must be given, in the order in which their values may also stand
        without a flag, as in `python -m tools.diff A B`. Where another flag will do instead of one,
        `a|b`; a value without a flag is for `a`.
    """
    fill_closed_streams()
    expected: tuple[type[Exception], ...] = (*user_errors, OSError)
    values = flags.FlagValues()
    define_flags(values)
    if supervisor is not None:
        supervisor.define_flags(values)
    try:
        with stdout_written_out():
            _parse(values, description, positional)
            _log_plain_lines_to_stderr()
            # Of damaged metadata in an image, whose pixels are told of where they are damaged.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _exit_on_signal)
            if supervisor is not None:
                supervisor.start(values[MEMORY_FLAG].value)
            sys.exit(main(values))
    except BrokenPipeError:
        # The reader of our output has gone (`predict.py | head`): nobody is left to be told.
        sys.exit(EXIT_FAILED)
    except MemoryError as error:
        allowed = f", or more than --{MEMORY_FLAG} allows" if supervisor is not None else ""
        exit_with_error(f"out of memory{allowed}: {error}".rstrip(": "), EXIT_FAILED)
    except expected as error:
        exit_with_error(str(error), EXIT_FAILED)


def _parse(values: flags.FlagValues, description: str, positional: Sequence[str]) -> None:
    """Takes the flags from `sys.argv`; exits where help is asked for, or one is wrong."""
    _answer_help(sys.argv[1:], values, description)
    try:
        parse(values, sys.argv, positional)
    except flags.Error as error:
        exit_with_error(f"{error} (see --help)", EXIT_USAGE)


def parse(
    values: flags.FlagValues, arguments: Sequence[str], positional: Sequence[str] = ()
) -> None:
    """Takes the flags from a command line.

    Args:
      values: the script's flags.
      arguments: the command line, the script's name first.
      positional: as of `run`.

    Raises:
      flags.Error: one is wrong, or missing, or there is an argument too many.
    """
    stray = values(arguments)[1:]
    choices = [names.split("|") for names in positional]
    waiting = [names for names in choices if values[names[0]].value is None]
    if len(stray) > len(waiting):
        raise flags.Error(f"unexpected argument {stray[len(waiting)]!r}")
    for names, value in zip(waiting, stray, strict=False):
        values[names[0]].parse(value)
    for names in waiting[len(stray) :]:
        if all(values[name].value is None for name in names):
            raise flags.Error("missing: " + " or ".join(f"--{name}=..." for name in names))
    values.validate_all_flags()


def _answer_help(arguments: Sequence[str], values: flags.FlagValues, description: str) -> None:
    """Prints the help and exits, before any validator can complain of a missing flag."""
    if _HELP_FLAGS.intersection(arguments):
        for name in values:  # All are the script's, whichever module defined them.
            values.register_key_flag_for_module(sys.argv[0], values[name])
        print(f"{description.strip()}\n{values.main_module_help()}")
        sys.exit(0)


def _exit_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + signum)


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
