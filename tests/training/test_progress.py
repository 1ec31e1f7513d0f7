"""What a person sees of a run."""

import io
import re
from typing import TextIO

import pytest

from cli.terminal import unfailing_writer
from training.metrics import Metrics, Progress

_LINE = r"step 10/20  loss 0\.5  test accuracy 0\.75  [\d,]+ images/s  0:00:00 left\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _show(terminal: TextIO | None) -> None:
    with Progress(0, 20, 8, "images", terminal) as progress:
        for _ in range(10):
            progress.step()
        progress.log(Metrics(10, loss=0.5, test_accuracy=0.75))


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    _show(None)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(_LINE, err)


def test_a_terminal_has_a_bar_below_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = _Terminal()
    _show(terminal)
    assert capsys.readouterr() == ("", "")
    line = re.search(_LINE, terminal.getvalue())
    assert line is not None
    assert "0/20" in terminal.getvalue()[: line.start()]
    assert "10/20 [" in terminal.getvalue()[line.end() :]


def test_another_file_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    _show(file)
    assert capsys.readouterr() == ("", "")
    assert re.fullmatch(_LINE, file.getvalue())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_that_is_gone_stops_no_step(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As scripts have it: its reader has ended, the disk is full, or the terminal is closed."""
    with open("/dev/full", "wb", buffering=0) as full:
        stream = unfailing_writer(full.fileno(), "utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        _show(stream)
        with pytest.raises(OSError, match="No space left"):
            full.write(b"x")
