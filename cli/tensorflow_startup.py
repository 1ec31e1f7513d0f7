"""Imports TensorFlow without its start-up chatter."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cli.held_output import STDERR, descriptors_into
from cli.signals import end_at_signals, stop_signals

INTRA_OP_THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"
MOST_THREADS = 1024

# What TensorFlow 2.21 prints on stderr while it is imported and looks for devices, on every
# machine: information and warnings (absl's prefix is a level letter and the date), the notice
# that they come early, and the failed search for a GPU driver. Errors of any other kind pass.
_CHATTER = re.compile(
    rb"^(?:[IW]\d{4} |WARNING: All log messages before absl::InitializeLog|E\d{4} .*\bcuInit\b)"
)


def import_tensorflow(intra_op_threads: int | None = None) -> None:
    """Imports TensorFlow and looks for its devices; its errors are printed, its chatter is not.

    Call it once, first in a script's `main`. TF_CPP_MIN_LOG_LEVEL, where it is set, is respected.

    Args:
      intra_op_threads: among how many threads an operation may split its work; None leaves it to
        TF_NUM_INTRAOP_THREADS or, without that, to the number of processors.

    Raises:
      OSError: it cannot be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # NumPy's OpenBLAS sends this process a SIGINT where it cannot start its threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if intra_op_threads is not None:
        # A ConfigProto would not do: all sessions of a process share the threads of its first.
        os.environ[INTRA_OP_THREADS_VARIABLE] = str(intra_op_threads)
    with _signals_end_the_process(), _without_chatter():
        try:
            import tensorflow as tf
        except ImportError as error:  # Such as of a library that finds no memory.
            raise OSError(f"TensorFlow cannot be imported: {error}") from error
        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


def thread_variables_error() -> str | None:
    """What is wrong with a variable that says how many threads TensorFlow starts.

    TensorFlow itself aborts at a negative number, and hangs at one that is too large.
    """
    for name in (INTRA_OP_THREADS_VARIABLE, "TF_NUM_INTEROP_THREADS"):
        text = os.environ.get(name) or "0"
        if not (text.isascii() and text.isdecimal() and int(text) <= MOST_THREADS):
            return f"the environment's {name}={text} must be a number from 0 to {MOST_THREADS}"
    return None


@contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Ends the process at the first signal, whatever handlers there are before and after."""
    before = {number: signal.getsignal(number) for number in stop_signals()}
    end_at_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, then passes on all but the chatter.

    The lines come from C++ code that logs before any log level can be set, so the descriptor
    itself has to be caught.
    """
    with tempfile.TemporaryFile() as held:
        try:
            with descriptors_into(held, [STDERR]):
                yield
        finally:
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(STDERR, line)
