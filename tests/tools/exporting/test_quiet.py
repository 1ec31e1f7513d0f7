"""Nothing of what is written inside comes out."""

import logging
import os
import sys
import warnings

import pytest

from tools.command import quiet


def _speak_and_fail() -> None:
    with quiet():
        os.write(1, b"from C++\n")
        os.write(2, b"from C++\n")
        print("from Python")
        print("from Python", file=sys.stderr)
        warnings.warn("of a package", UserWarning, stacklevel=1)
        logging.getLogger("tf2onnx").warning("of a logger")
        print(1 // 0)


def test_all_of_it_is_dropped_and_afterwards_all_is_as_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    print("before")
    with pytest.raises(ZeroDivisionError):
        _speak_and_fail()
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\n", "after\n")
    with pytest.raises(UserWarning):
        warnings.warn("an error again", UserWarning, stacklevel=1)
