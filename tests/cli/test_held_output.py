"""What C++ code writes goes into a file for a while, and nothing else does."""

import os
import tempfile

import pytest

from cli.terminal import STDERR, STDOUT, descriptors_into


def test_only_the_named_descriptors_are_led_away(capfd: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryFile() as file:
        with descriptors_into(file, [STDERR]):
            os.write(STDOUT, b"out\n")
            os.write(STDERR, b"held\n")
        os.write(STDERR, b"err\n")
        file.seek(0)
        assert file.read() == b"held\n"
    assert capfd.readouterr() == ("out\n", "err\n")


def test_an_error_gives_them_back(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        tempfile.TemporaryFile() as file,
        pytest.raises(ZeroDivisionError),
        descriptors_into(file, [STDERR]),
    ):
        raise ZeroDivisionError
    os.write(STDERR, b"back\n")
    assert capfd.readouterr().err == "back\n"
