"""Runs a script: parses its flags, prints errors as one line, ends with the right exit code.

The script works in a child process, as TensorFlow ends its process where it fails a check of its
own, and the system where memory runs out: only the parent can tell that in a line. The script forks
before anything large is imported; the parent passes signals on, and ends with the child's exit
code. The child's stderr goes through the parent, since libraries write there what they have from a
stranger's file.
"""

import logging as standard_logging
import mmap
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from absl import flags, logging

from cli.fields import CommandLine
from cli.signals import ECHO_SECONDS, end_at_signals, exit_at_signals, stop_signals
from cli.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    end_at_once,
    exit_with_error,
    flush_streams,
    prepare_streams,
    printable,
    stdout_written_out,
    thread_variables_error,
    unfailing_writer,
)
from errors import UserError

MEMORY_FLAG = "memory_limit_mb"
STOP_SECONDS = 3  # What a child is given to end itself once it has been told to.
_LAST_WORDS_BYTES = 4096
_MOST_OF_A_LINE = 1 << 16  # Characters that are passed on at once.
# What TensorFlow 2.21 writes when it fails a check of its own: why, then a line for each caller.
_FATAL = re.compile(r"F\d{4} [^]]*\] (.*)|\*\*\* Check failure | +@ +0x")
# These lines are left out, unless TF_CPP_MIN_LOG_LEVEL is below 2. TensorFlow prints them on every
# machine while it looks for devices: information, warnings, the failed search for a GPU driver. Its
# lines on a worker that has ended are among them, as there is one of ours.
_CHATTER = re.compile(
    r"[IW]\d{4} |WARNING: All log messages before absl::Init|E\d{4} .*\bcuInit\b"
    r"|E\d{4} .*\b(?:ring_alg|base_collective_executor)\.cc|Additional GRPC error|:UNKNOWN:"
)
# The container's own limit, in versions 2 and 1 of Linux's control groups. Format: the kernel's
# Documentation/admin-guide/cgroup-v2.rst.
_CONTAINER = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# The stacks of TensorFlow's threads count, used or not: those of four threads a processor take
# 32 MiB, and twice that is allowed.
_STACKS_BYTES = 64 << 20


def available_bytes() -> int:
    """Bytes of the machine's memory, or of its container's where that has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER:
        with suppress(OSError, ValueError):  # No such file; `max`, for no limit.
            limits.append(int(path.read_text()))
    return min(limits)


def limit_memory(size: int) -> None:
    """Lets this process allocate so many bytes beside its stacks, or what a lower limit says."""
    import resource  # Not on Windows.

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size + _STACKS_BYTES * (os.cpu_count() or 1)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


class Supervisor:
    """Starts a script's own process, where the system can fork, and says how it ended."""

    def __init__(self, needs_less: str | None = None, *, waits_for_stop: bool = False) -> None:
        """Prepares one for `run`.

        `needs_less` says how the script can be made to need less memory, such as `give it less at a
        time`; None is for one that reads nothing of strangers, and has no limit. A trainer
        `waits_for_stop`: at a signal it may take its time to save what it has; a second SIGINT
        gives it `STOP_SECONDS`.
        """
        self._needs_less = needs_less
        self._waits_for_stop = waits_for_stop
        # Shared with the child: what to say of it when time is up.
        self._last_words = mmap.mmap(-1, _LAST_WORDS_BYTES)
        self._timer: threading.Timer | None = None
        self._is_child = False
        self._terminal: TextIO | None = None

    def start(self, memory_limit_mb: int | None) -> list[int]:
        """Forks, and returns in the child only: the parent exits when the child has ended.

        The child may allocate `memory_limit_mb` MiB; 0 is no limit, None what memory there is.
        Returns the signals that come from then on; a trainer, which asks for them itself, gets none
        here. Raises OSError where the system starts no further process.
        """
        if hasattr(os, "fork"):
            self._fork()
        if self._is_child and memory_limit_mb != 0:
            limit_memory(memory_limit_mb << 20 if memory_limit_mb else available_bytes())
        if self._needs_less is not None or not self._waits_for_stop:
            return exit_at_signals()  # What reads a model may have temporary files.
        return []

    def _fork(self) -> None:
        flush_streams()
        parent_read, parent_write = os.pipe()  # Ends when the parent does.
        stderr_read, stderr_write = os.pipe()
        try:
            child = os.fork()
        except OSError as error:
            reason = f"the system starts no more processes, as where `ulimit -u` is low: {error}"
            raise OSError(reason) from error
        if child:
            os.close(parent_read)
            os.close(stderr_write)
            self._wait(child, stderr_read)
        os.close(parent_write)
        os.close(stderr_read)
        if os.isatty(2):
            self._terminal = unfailing_writer(os.dup(2), sys.stderr.encoding)
        os.dup2(stderr_write, 2)
        os.close(stderr_write)
        sys.stderr = unfailing_writer(2, "utf-8")  # What the parent expects, whatever it writes.
        self._is_child = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        threading.Thread(target=end_with_parent, args=(parent_read,), daemon=True).start()

    def end_after(self, seconds: float, line: str) -> None:
        """Ends the process with an error line in so many seconds, whatever it does; 0 for never.

        Each call stands in place of the one before. TensorFlow may keep all of Python from running
        while it computes: in a child the system ends it, and the parent says the line.
        """
        if self._is_child:
            signal.setitimer(signal.ITIMER_REAL, 0)
            words = line.encode(errors="backslashreplace")[: _LAST_WORDS_BYTES - 1] + b"\0"
            self._last_words[: len(words)] = words
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, end_at_once, [line])
        self._timer.daemon = True
        if seconds:
            self._timer.start()

    def fields(self) -> dict[str, Any]:
        """The fields that a request may have of it: `end_after`, and `terminal` for a progress bar.

        That is the terminal that stderr is to the parent, or else stderr. Only there the cursor may
        be moved. Nothing from a stranger's file is to take this way.
        """
        return {"end_after": self.end_after, "terminal": self._terminal or sys.stderr}

    def _wait(self, child: int, stderr: int) -> NoReturn:
        """Passes on what the child writes to `stderr` until it ends, and ends as it did."""
        came: list[tuple[int, float]] = []  # The signals, and when.

        def stop(number: int, _: FrameType | None) -> None:
            """Passes a signal on. Ctrl-C reaches the child too, which then heeds the first."""
            came.append((number, time.monotonic()))
            is_impatient = came[-1][1] > came[0][1] + ECHO_SECONDS
            if self._waits_for_stop:
                kill, hurry = False, is_impatient and number == signal.SIGINT
            else:
                kill, hurry = is_impatient, len(came) == 1
            if hurry:
                signal.alarm(STOP_SECONDS)
            with suppress(ProcessLookupError):  # It has ended in the meantime.
                os.kill(child, signal.SIGKILL if kill else number)

        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        for number in stop_signals():
            signal.signal(number, stop)
        reason = _pass_on(stderr)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        if status >= 0 or came:
            # Not by the end of Python, which gives signals back: one more would be another code.
            os._exit(status if status >= 0 else 128 + came[0][0])
        exit_with_error(self._said_of(signal.Signals(-status)) + reason, EXIT_FAILED)

    def _said_of(self, number: signal.Signals) -> str:
        words = self._last_words[:].partition(b"\0")[0]
        if number == signal.SIGALRM and words:
            return words.decode(errors="replace")
        if number == signal.SIGKILL:
            said = "killed by SIGKILL, as the system does when there is no memory left"
            if self._needs_less:
                said += f": {self._needs_less}, or allow it less with --{MEMORY_FLAG}"
        elif self._needs_less:
            said = (
                f"TensorFlow crashed ({number.name}): what it was given is damaged, or needs more "
                f"memory than there is or than --{MEMORY_FLAG} allows: if so, {self._needs_less}"
            )
        else:
            said = (
                f"TensorFlow crashed ({number.name}), such as where the system gives it no more "
                "memory or threads"
            )
        kept = "; the checkpoints stay, and the same command goes on from the newest"
        return said + (kept if self._waits_for_stop else "")


def _pass_on(stderr: int) -> str:
    """Writes to stderr what comes from a pipe, fit for a terminal, until its writers have ended.

    Returns why TensorFlow ended the process, in brackets, where it has said so, in place of it.
    """
    reason = ""
    is_quiet = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2") not in ("0", "1")
    with open(stderr, encoding="utf-8", errors="backslashreplace", newline="\n") as pipe:
        while line := pipe.readline(_MOST_OF_A_LINE):
            if fatal := _FATAL.match(line):
                reason = f" [{fatal[1]}]" if fatal[1] else reason
            elif not (is_quiet and _CHATTER.match(line)):
                sys.stderr.write(printable(line))
                sys.stderr.flush()
    return reason


def end_with_parent(read_end: int) -> None:
    """Waits for the parent's end, which closes the other end of the pipe, and ends this process."""
    os.read(read_end, 1)
    os._exit(EXIT_FAILED)


# The start and the end of a script.

# Set where threads are at work that nobody can end, as those of TensorFlow's server: then a script
# ends without the tidying up of Python, which the process may not survive.
ENDS_AT_ONCE = threading.Event()
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

    The `request` is a dataclass of flags, see `cli.fields`; it, or what is nested in it, may have
    the `fields` of the supervisor. The description is the script's docstring, None with
    `python -OO`. All scripts have a supervisor but a benchmark, which starts processes itself.
    """
    try:
        _run(main, request, description, supervisor)
    except SystemExit as ended:
        if not ENDS_AT_ONCE.is_set():
            raise
        flush_streams()
        os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))


def _run(
    main: Callable[[Any], int | None],
    request: type,
    description: str | None,
    supervisor: Supervisor | None,
) -> NoReturn:
    prepare_streams()
    line = CommandLine(request, description)
    is_limited = MEMORY_FLAG in line.values
    try:
        with stdout_written_out():
            _take(line)
            _log_plain_lines_to_stderr()
            # Of damaged metadata in an image, whose pixels are told of where they are damaged.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            limit = line.values[MEMORY_FLAG].value if is_limited else 0
            came = supervisor.start(limit) if supervisor else exit_at_signals()
            _exit(main, line.read(supervisor.fields() if supervisor else {}), came)
    except BrokenPipeError:
        # The reader of our output has gone (`predict.py | head`): nobody is left to be told.
        sys.exit(EXIT_FAILED)
    except MemoryError as error:
        allowed = f", or more than --{MEMORY_FLAG} allows" if is_limited else ""
        exit_with_error(f"out of memory{allowed}: {error}".rstrip(": "), EXIT_FAILED)
    except RuntimeError as error:
        if str(error) != "can't start new thread":  # Python has no type for it.
            raise
        less = "is it limited, as by `ulimit -u` or `ulimit -v`?"
        exit_with_error(f"the system starts no more threads: {less}", EXIT_FAILED)
    except (UserError, OSError) as error:
        exit_with_error(str(error), EXIT_FAILED)
    finally:
        end_at_signals()


def _exit(main: Callable[[Any], int | None], request: Any, came: Sequence[int]) -> NoReturn:
    """Exits as `main` does; where a signal `came`, with its code, whatever was raised since."""
    try:
        sys.exit(main(request))
    finally:
        if came:
            sys.exit(128 + came[0])


def _take(line: CommandLine) -> None:
    """Takes the flags from `sys.argv`; exits where help is asked for, or something is wrong."""
    for argument in sys.argv[1:]:
        raw = os.fsencode(argument)
        if raw.decode(errors="ignore") != argument:
            given = raw.decode(errors="backslashreplace")
            mend = "must be UTF-8, and the locale too, such as LC_ALL=C.UTF-8"
            exit_with_error(f"the argument {given} {mend}", EXIT_USAGE)
    if _HELP_FLAGS.intersection(sys.argv[1:]):  # Before a check complains of a missing flag.
        print(line.help())
        sys.exit(0)
    try:
        line.take(sys.argv)
    except flags.Error as error:
        # What absl says of a file that is not there begins with a word of its own.
        exit_with_error(f"{str(error).removeprefix('ERROR:: ')} (see --help)", EXIT_USAGE)
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
