"""How a script starts and ends."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from absl import logging

from cli.fields import POSITIVE, REPEATED, flag, from_zero, parse
from cli.run import run
from cli.signals import stop_signals
from errors import UserError

End = Callable[..., int | str | None]


@dataclass(frozen=True)
class _Request:
    count: int = flag("How many.", 3, low=1)
    rate: float = flag("Of change.", 0.5, check=POSITIVE)
    share: float = flag("Held out.", 0.0, check=from_zero(below=1.0))
    folder: str = flag("Where.", "here", path=True)
    feed: tuple[str, ...] = flag("What.", (), many=REPEATED, path=True)


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> Iterator[End]:
    """Runs a main with arguments and gives the exit code; then logs and signals are as before."""

    def run_main(main: Callable[[_Request], int | None], *arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["/some/where/script.py", *arguments])
        with pytest.raises(SystemExit) as end:
            run(main, _Request, "Does a thing.")
        return end.value.code

    logger = logging.get_absl_logger()
    handlers, propagate = list(logger.handlers), logger.propagate
    before = {number: signal.getsignal(number) for number in stop_signals()}
    yield run_main
    logger.handlers, logger.propagate = handlers, propagate
    for number, handler in before.items():
        signal.signal(number, handler)


def _fail(error: Exception) -> Callable[[_Request], None]:
    def main(request: _Request) -> None:
        del request
        raise error

    return main


def test_main_gets_the_flags_and_gives_the_exit_code(end: End) -> None:
    assert end(lambda request: request.count, "--count=5") == 5
    assert end(lambda _: None) is None


def test_pillow_does_not_warn_of_metadata(end: End) -> None:
    warn, about = warnings.warn_explicit, ("Corrupt EXIF", UserWarning, "f.py", 1)
    assert end(lambda _: warn(*about, "PIL.TiffImagePlugin")) is None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("~/x", "/home/me/x"),
        ("file:///a/~", "/a/~"),
        ("gs://b/~", "gs://b/~"),
        ("a~", "a~"),
        ("a=~/x", "a=~/x"),
    ],
)
def test_a_path_is_what_a_shell_would_have_given(
    monkeypatch: pytest.MonkeyPatch, given: str, path: str
) -> None:
    """Also that of name=path, where that is what a flag takes."""
    monkeypatch.setenv("HOME", "/home/me")
    asked = parse(_Request, ["s", f"--folder={given}", f"--feed={given}", f"--feed=n={given}"])
    both = (path, f"n={path}") if "=" not in given else ("a=/home/me/x", f"n={given}")
    assert (asked.folder, asked.feed) == (path, both)


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_lists_the_flags_and_runs_nothing(
    end: End, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert end(_fail(AssertionError()), flag, "--count=nonsense") == 0
    output = capsys.readouterr().out
    assert output.startswith("Does a thing.")
    assert "--rate: Of change. Above 0." in output


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--count=0", "--count=0"),
        ("--count=x", "--count=x"),
        ("--rate=nan", "--rate=nan: must be a finite number above 0"),
        ("--rate=inf", "--rate=inf"),
        ("--rate=0", "--rate=0"),
        ("--rate=1e39", "--rate=1e+39: must be a finite number above 0 that a float32 can hold"),
        ("--rate=1e-60", "--rate=1e-60: must be"),
        ("--rate=1.1e-38", "--rate=1.1e-38: must be"),
        ("--share=1", "must be a number from 0 and below 1"),
        ("--share=nan", "--share=nan"),
        ("--folder=m\udcff", r"--folder=m\xff must be UTF-8"),
    ],
)
def test_usage_errors_are_one_line_and_2(
    end: End, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert end(_fail(AssertionError()), argument) == 2
    error = capsys.readouterr().err
    assert error.startswith("script.py: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "error", [UserError("two\nlines"), FileNotFoundError(2, "No such file", "two lines")]
)
def test_users_errors_are_one_line_and_1(
    end: End, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert end(_fail(error)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("script.py: error: ")
    assert "two lines" in line


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("ours")])
def test_a_defect_keeps_its_traceback(end: End, error: Exception) -> None:
    with pytest.raises(type(error)):
        end(_fail(error))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_their_code(end: End, number: signal.Signals, code: int) -> None:
    assert end(lambda _: os.kill(os.getpid(), number)) == code


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _without_reader() -> int:
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


@pytest.mark.parametrize("arguments", [[], ["--help"]])
@pytest.mark.parametrize(
    ("stdout", "said"),
    [
        (_full, "script.py: error: [Errno 28] No space left on device: 'stdout'\n"),
        (_without_reader, ""),
    ],
)
def test_output_that_cannot_be_written_is_one_line_unless_nobody_reads_it(
    end: End,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    stdout: Callable[[], int],
    said: str,
) -> None:
    """It is short enough to be held back until the end."""
    with open(stdout(), "w") as file:  # Its end would raise, were anything still held then.
        monkeypatch.setattr(sys, "stdout", file)
        assert end(lambda _: print("done"), *arguments) == 1
    assert capsys.readouterr().err == said


def test_logs_go_to_stderr_as_they_are(end: End, capsys: pytest.CaptureFixture[str]) -> None:
    def main(request: _Request) -> None:
        logging.info("at step %d", request.count)
        logging.warning("odd")
        logging.info("a name\nerror: of two  lines")

    assert end(main) is None
    captured = capsys.readouterr()
    assert captured.err == "at step 3\nwarning: odd\na name error: of two  lines\n"
    assert captured.out == ""
