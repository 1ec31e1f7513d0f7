"""Runs a script: parses its flags, prints errors as one line, ends with the right exit code."""

import logging as standard_logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import flags, logging

from cli.ending import EXIT_FAILED, EXIT_USAGE, exit_with_error
from cli.printing import printable
from cli.signals import end_at_signals, exit_at_signals
from cli.standard_streams import prepare_streams, stdout_written_out
from cli.supervisor import MEMORY_FLAG, Supervisor
from cli.tensorflow_startup import thread_variables_error

_HELP_FLAGS = frozenset({"-h", "-help", "--help", "--helpfull", "--helpshort"})


def run(
    main: Callable[[flags.FlagValues], int | None],
    define_flags: Callable[[flags.FlagValues], None],
    description: str | None,
    user_errors: tuple[type[Exception], ...] = (),
    supervisor: Supervisor | None = None,
    positional: Sequence[str] = (),
) -> NoReturn:
    """Parses `sys.argv`, calls `main` and exits: the last line of a script.

    Exit codes: 0 done (or what `main` returns), 1 failed, 2 usage, 129 SIGHUP, 130 SIGINT, 143
    SIGTERM.

    Args:
      main: the script's work, given the parsed flags; returns an exit code or None for 0.
      define_flags: defines the script's flags in the values it is given. They are the script's
        own, not absl's global ones, so importing a script has no effect.
      description: the script's docstring, shown by --help; None under `python -OO`.
      user_errors: the exceptions that are a user's to mend; they and OSError are printed as one
        line. Any other exception is a defect of ours and keeps its traceback.
      supervisor: has `main` run in a process of its own, so that a crash is one line as well. All
        scripts have one; a benchmark has none, which starts processes itself.
      positional: the flags that must be given, in the order in which their values may also stand
        without a flag, as in `python -m tools.diff A B`. Where another flag will do instead of one,
        `a|b`; a value without a flag is for `a`.
    """
    prepare_streams()
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
            if supervisor is None:
                exit_at_signals()
            else:
                supervisor.start(values)
            sys.exit(main(values))
    except BrokenPipeError:
        # The reader of our output has gone (`predict.py | head`): nobody is left to be told.
        sys.exit(EXIT_FAILED)
    except (MemoryError, RuntimeError) as error:
        exit_with_error(_shortage(error, values), EXIT_FAILED)
    except expected as error:
        exit_with_error(str(error), EXIT_FAILED)
    finally:
        end_at_signals()


def _shortage(error: MemoryError | RuntimeError, values: flags.FlagValues) -> str:
    """What the system did not give; raises an error again that is of something else."""
    if isinstance(error, MemoryError):
        allowed = f", or more than --{MEMORY_FLAG} allows" if MEMORY_FLAG in values else ""
        return f"out of memory{allowed}: {error}".rstrip(": ")
    if str(error) != "can't start new thread":  # Python has no type for it.
        raise error
    return "the system starts no more threads: is it limited, as by `ulimit -u` or `ulimit -v`?"


def _parse(values: flags.FlagValues, description: str | None, positional: Sequence[str]) -> None:
    """Takes the flags from `sys.argv`; exits where help is asked for, or something is wrong."""
    for argument in sys.argv[1:]:
        raw = os.fsencode(argument)
        if raw.decode(errors="ignore") != argument:
            escaped = raw.decode(errors="backslashreplace")
            exit_with_error(
                f"the argument {escaped} must be UTF-8, and the locale too, such as LC_ALL=C.UTF-8",
                EXIT_USAGE,
            )
    _answer_help(sys.argv[1:], values, description)
    try:
        parse(values, sys.argv, positional)
    except flags.Error as error:
        exit_with_error(f"{error} (see --help)", EXIT_USAGE)
    if wrong := thread_variables_error():
        exit_with_error(wrong, EXIT_USAGE)


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


def _answer_help(
    arguments: Sequence[str], values: flags.FlagValues, description: str | None
) -> None:
    """Prints the help and exits, before any validator can complain of a missing flag."""
    if _HELP_FLAGS.intersection(arguments):
        for name in values:  # All are the script's, whichever module defined them.
            values.register_key_flag_for_module(sys.argv[0], values[name])
        print(f"{(description or '').strip()}\n{values.main_module_help()}")
        sys.exit(0)


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
