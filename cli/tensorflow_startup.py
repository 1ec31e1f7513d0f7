"""Imports TensorFlow without its start-up chatter."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cli.held_output import STDERR, descriptors_into

INTRA_OP_THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"

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
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if intra_op_threads is not None:
        # A ConfigProto would not do: all sessions of a process share the threads of its first.
        os.environ[INTRA_OP_THREADS_VARIABLE] = str(intra_op_threads)
    with _signals_end_the_process(), _without_chatter():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


@contextmanager
def _signals_end_the_process() -> Iterator[None]:
    """Ends the process at the first SIGINT or SIGTERM, with the exit code 128 + its number.

    An exception that a handler raises in the midst of an import can be swallowed there: modules
    are full of attempts to import others. Nothing has been begun yet that would need tidying.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: os._exit(128 + number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, then passes on all but the chatter.

    The lines come from C++ code that logs before any log level can be set, so the descriptor
    itself has to be caught. An error inside passes everything on.
    """
    keep_all = False
    with tempfile.TemporaryFile() as held:
        try:
            with descriptors_into(held, [STDERR]):
                yield
        except Exception:
            keep_all = True
            raise
        finally:
            held.seek(0)
            for line in held:
                if keep_all or not _CHATTER.match(line):
                    os.write(STDERR, line)
