"""What a script puts on the terminal: text that it shows and does not obey, and one error line.

Also the import of TensorFlow, at once or when something asks for it.
"""

import functools
import gc
import importlib.util
import io
import os
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from cli.signals import end_at_signals, stop_signals
from errors import NotInstalledError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Control characters but for tab and newline, and those that turn the direction of what follows.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text with each character that a terminal would obey as its escape, such as `\u001b`.

    So names in a stranger's file hide and forge no line. JSON stays JSON.
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    r"""As `printable`, with tabs and newlines escaped too: a name stays within its line."""
    return printable(text.replace("\n", r"\n").replace("\t", r"\t"))


def prepare_streams() -> None:
    """Makes the three standard streams fit for whatever is read and printed.

    The null device stands in for each that is closed: else the next file that is opened gets its
    number, and what is printed goes into that. What an encoding lacks is escaped.
    """
    is_on_terminal()  # Remembered: in a process of its own, a script's stderr is a pipe.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number: this one.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for as long as the process lives)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:  # Not what a caller has put in its place.
        sys.stderr = unfailing_writer(2, sys.stderr.encoding if sys.stderr else "utf-8")


@functools.cache
def is_on_terminal() -> bool:
    """Whether somebody reads stderr on a terminal."""
    return os.isatty(2)


def unfailing_writer(descriptor: int, encoding: str) -> TextIO:
    """Text for people, to a descriptor that is left open; what cannot be written is dropped.

    A full disk or a reader that has gone must not keep a step from being saved.
    """
    raw = _UnfailingFile(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=True
    )


class _UnfailingFile(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or len(memoryview(data))
        except OSError:
            return len(memoryview(data))


@contextmanager
def stdout_written_out() -> Iterator[None]:
    """Writes to stdout, at the end, what Python still holds for it.

    Raises OSError where it cannot be written, such as to a full disk; a BrokenPipeError where its
    reader has gone. It is dropped: Python itself would try again when nobody can be told any more.
    """
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _drop_stdout()
            raise OSError(error.errno, error.strerror, "stdout") from error


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_result(line: str, exit_code: int) -> int:
    """Prints a trainer's result and returns its exit code; OSError where it cannot be printed.

    Of a run that a signal has stopped, the code is what counts: the same Ctrl-C may have ended the
    reader, as of `train_cnn.py | tee log`.
    """
    try:
        print(one_line(line), flush=True)
    except OSError:
        if not exit_code:
            raise
        _drop_stdout()
    return exit_code


# How a script says what went wrong, and ends: one line on stderr and an exit code.

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


def _print_error(message: str) -> None:
    line = printable(" ".join(message.split()))
    print(f"{os.path.basename(sys.argv[0])}: error: {line}", file=sys.stderr, flush=True)


def flush_streams() -> None:
    """Writes out what Python holds, so that it goes where it was meant to go."""
    sys.stdout.flush()
    sys.stderr.flush()


# The import of TensorFlow.

INTRA_OP_THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"
ONEDNN_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
MOST_THREADS = 1024
_EAGER_KERAS = "keras.src.optimizers"
_STOPPED = "\nstopped while TensorFlow was loading: nothing has been done\n"


def import_tensorflow(intra_op_threads: int | None = None) -> None:
    """Imports TensorFlow and looks for its devices, which makes it print its start-up chatter.

    Call it once, first in a script's `main`; OSError where it cannot be imported. An operation may
    split its work among so many threads, by default TF_NUM_INTRAOP_THREADS or all processors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow by itself leaves oneDNN's kernels out on processors without AVX-512. They are up to
    # three times as fast there too (docs/measurements.md).
    os.environ.setdefault(ONEDNN_VARIABLE, "1")
    # NumPy's OpenBLAS sends this process a SIGINT where it cannot start its threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if intra_op_threads is not None:
        # A ConfigProto would not do: all sessions of a process share the threads of its first.
        os.environ[INTRA_OP_THREADS_VARIABLE] = str(intra_op_threads)
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    # An exception of a handler could be swallowed by the import.
    end_at_signals(_STOPPED if is_on_terminal() else "")
    if is_on_terminal() and _NAME not in sys.modules:
        print("loading TensorFlow", file=sys.stderr, flush=True)
    try:
        with _only_what_is_needed():
            import tensorflow as tf

            tf.config.list_physical_devices()
    except ImportError as error:  # Such as of a library that finds no memory.
        raise OSError(f"TensorFlow cannot be imported: {error}") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    tf.get_logger().setLevel("ERROR")


@contextmanager
def _only_what_is_needed() -> Iterator[None]:
    """Spares TensorFlow's import what takes two fifths of its time.

    The garbage collector would walk again and again over objects that live to the end: it is off
    meanwhile, and never looks at them later. And TensorFlow's last lines load Keras, in a `try`
    that passes over an ImportError: here it waits until someone asks for `tf.keras`.
    """
    was_on, is_loaded = gc.isenabled(), _EAGER_KERAS in sys.modules
    gc.disable()
    if not is_loaded:
        sys.modules[_EAGER_KERAS] = None  # type: ignore[assignment]  # Python's way to refuse it.
    try:
        yield
    finally:
        if not is_loaded:
            del sys.modules[_EAGER_KERAS]
        gc.freeze()
        if was_on:
            gc.enable()


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Not on every system.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def is_off(setting: str) -> bool:
    """Whether TensorFlow takes a variable's text, such as that of `ONEDNN_VARIABLE`, for no."""
    return setting.lower() in ("0", "false")


def thread_variables_error() -> str | None:
    """What is wrong with a variable that says how many threads TensorFlow starts.

    TensorFlow itself aborts at a negative number, and hangs at one that is too large.
    """
    for name in (INTRA_OP_THREADS_VARIABLE, "TF_NUM_INTEROP_THREADS"):
        text = os.environ.get(name) or "0"
        if not (text.isascii() and text.isdecimal() and int(text) <= MOST_THREADS):
            return f"the environment's {name}={text} must be a number from 0 to {MOST_THREADS}"
    return None


# TensorFlow's protos without TensorFlow, which takes fifty times as long to import.
#
# Python finds them by the package's `__path__`, for which the package need not have run: a bare
# module of its name stands in, until something else is asked of it. So where TensorFlow is
# installed there is one class of each message, whichever way it came. Where it is not, the copies
# of TensorBoard do; they lack `SavedModel`, which is described here.

_NAME = "tensorflow"
_SAVED_MODEL = """
name: "saved_model.proto" package: "tensorboard" syntax: "proto3"
dependency: "tensorboard/compat/proto/meta_graph.proto"
message_type { name: "SavedModel"
field { name: "saved_model_schema_version" number: 1 label: LABEL_OPTIONAL type: TYPE_INT64 }
field { name: "meta_graphs" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE
type_name: ".tensorboard.MetaGraphDef" } }
"""


class _Package(types.ModuleType):
    """A module of TensorFlow's that has not run; `get` has what its names stand for."""

    def __init__(self, name: str, path: list[str], get: Callable[[str], Any]) -> None:
        super().__init__(name)
        self.__path__ = path
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self._get = get

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # Python's own, such as `__file__`.
            raise AttributeError(name)
        return self._get(name)


def postpone_tensorflow() -> None:
    """Has `import tensorflow` cost nothing until something but a proto is asked of it.

    Call it in place of `import_tensorflow`, before a module that imports TensorFlow.
    """
    if _NAME in sys.modules:
        return
    found = importlib.util.find_spec(_NAME)
    if found is not None:
        path = [*(found.submodule_search_locations or ())]
        sys.modules[_NAME] = _Package(_NAME, path, _loaded)
        return
    board = importlib.util.find_spec("tensorboard")
    places = board.submodule_search_locations if board else None
    protos = [os.path.join(place, "compat", "proto") for place in places or ()]
    for name, path, get in (
        (_NAME, [], _not_installed),
        (f"{_NAME}.core", [], _no_name),
        (f"{_NAME}.core.framework", protos, _no_name),
        (f"{_NAME}.core.protobuf", protos, _no_name),
        (f"{_NAME}.core.protobuf.saved_model_pb2", [], _saved_model),
    ):
        sys.modules[name] = _Package(name, path, get)


def _loaded(name: str) -> Any:
    """A name of TensorFlow, which is loaded and takes its package's place."""
    bare = sys.modules.get(_NAME)
    if isinstance(bare, _Package):
        del sys.modules[_NAME]
        try:
            import_tensorflow()
        except BaseException:
            sys.modules[_NAME] = bare
            raise
        if "core" in vars(bare):  # It was loaded already, so that nobody adds it again.
            vars(sys.modules[_NAME])["core"] = vars(bare)["core"]
    return getattr(sys.modules[_NAME], name)


def _not_installed(name: str) -> NoReturn:
    raise NotInstalledError(
        f"this needs TensorFlow, which is not installed: pip install {_NAME} ({name})"
    )


def _no_name(name: str) -> NoReturn:
    raise AttributeError(name)  # Python then looks for a module of that name.


def _saved_model(_: str) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    importlib.import_module("tensorboard.compat.proto.meta_graph_pb2")
    pool = descriptor_pool.Default()
    pool.Add(text_format.Parse(_SAVED_MODEL, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorboard.SavedModel"))
