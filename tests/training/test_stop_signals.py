"""Signals during the loop."""

import os
import signal

import pytest

from training import loop
from training.loop import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
    assert signal.getsignal(number) is before
    assert "stopping" in capfd.readouterr().err


def test_the_first_signal_counts(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == signal.SIGINT
    assert capfd.readouterr().err.count("stopping") == 1


def test_an_echo_of_the_first_sigint_is_no_second_one() -> None:
    """As Ctrl-C reaches a process that its parent passes it on to, too."""
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == signal.SIGINT


def test_the_second_sigint_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ECHO_SECONDS", -1.0)
    child = os.fork()
    if child == 0:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130


def test_nobody_who_hears_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python train_linear.py 2>&1 | tee log`: Ctrl-C ends tee first."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    monkeypatch.setattr(os, "write", lambda _, line: _write(write_end, line))
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.received == signal.SIGINT
    with pytest.raises(BrokenPipeError):
        _write(write_end, b"x")
    os.close(write_end)


_write = os.write


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
