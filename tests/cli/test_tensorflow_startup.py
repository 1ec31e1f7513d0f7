"""What of TensorFlow's start-up reaches stderr."""

import contextlib
import os
import signal
import sys

import pytest

from cli import terminal

CHATTER = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795168632.307581    2020 port.cc:153] oneDNN custom operations are on.\n"
    b"W0000 00:00:1795168632.307581    2020 some.cc:1] A warning.\n"
    b"E0000 00:00:1795168639.297549    2020 cuda_platform.cc:52] failed call to cuInit: none\n"
)
ERRORS = b"E0000 00:00:1795168639.297549    2020 other.cc:52] the disk is on fire\nPlain words\n"


def test_chatter_is_dropped_and_errors_pass(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal._without_chatter():
        os.write(2, CHATTER + ERRORS)
    assert capfd.readouterr().err.encode() == ERRORS


def _end_with(error: BaseException) -> None:
    with terminal._without_chatter():
        os.write(2, CHATTER + ERRORS)
        raise error


@pytest.mark.parametrize("error", [ImportError("no memory"), SystemExit(143)])
def test_an_end_inside_changes_nothing(
    capfd: pytest.CaptureFixture[str], error: BaseException
) -> None:
    with pytest.raises(type(error)):
        _end_with(error)
    assert capfd.readouterr().err.encode() == ERRORS


def test_a_tensorflow_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(OSError, match="TensorFlow cannot be imported: "):
        terminal.import_tensorflow()


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [("", False), ("0", False), ("1024", False), ("1025", True), ("-4", True), ("two", True)],
)
def test_a_number_of_threads_that_tensorflow_does_not_survive_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, is_wrong: bool
) -> None:
    monkeypatch.setenv(name, text)
    said = terminal.thread_variables_error()
    assert (said is not None and f"{name}={text} " in said) == is_wrong


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_import_swallows_a_signal(number: int, code: int) -> None:
    """As a module does that tries to import another, and goes on without it."""
    child = os.fork()
    if child == 0:
        with terminal._signals_end_the_process(), contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code


def test_the_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminal._signals_end_the_process():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
