"""What of TensorFlow's start-up reaches stderr."""

import os

import pytest

from cli import tensorflow_startup

CHATTER = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795168632.307581    2020 port.cc:153] oneDNN custom operations are on.\n"
    b"W0000 00:00:1795168632.307581    2020 some.cc:1] A warning.\n"
    b"E0000 00:00:1795168639.297549    2020 cuda_platform.cc:52] failed call to cuInit: none\n"
)
ERRORS = b"E0000 00:00:1795168639.297549    2020 other.cc:52] the disk is on fire\nPlain words\n"


def test_chatter_is_dropped_and_errors_pass(capfd):
    with tensorflow_startup._without_chatter():
        os.write(2, CHATTER + ERRORS)
    assert capfd.readouterr().err.encode() == ERRORS


def test_an_error_inside_shows_everything(capfd):
    with pytest.raises(ImportError), tensorflow_startup._without_chatter():
        os.write(2, CHATTER)
        raise ImportError
    assert capfd.readouterr().err.encode() == CHATTER


def test_an_exit_inside_shows_no_chatter(capfd):
    with pytest.raises(SystemExit), tensorflow_startup._without_chatter():
        os.write(2, CHATTER)
        raise SystemExit(143)
    assert capfd.readouterr().err == ""
