"""How a script starts and ends, and what of it reaches the terminal."""

import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest
from absl import logging

from cli import terminal
from cli.fields import POSITIVE, REPEATED, flag, from_zero, parse
from cli.run import run
from cli.signals import stop_signals
from cli.terminal import printable
from errors import UserError
from tests.conftest import PROJECT, Capture, Patch, run_python

End = Callable[..., int | str | None]


@dataclass(frozen=True)
class _Request:
    count: int = flag("How many.", 3, low=1)
    rate: float = flag("Of change.", 0.5, check=POSITIVE)
    share: float = flag("Held out.", 0.0, check=from_zero(below=1.0))
    folder: str = flag("Where.", "here", path=True)
    feed: tuple[str, ...] = flag("What.", (), many=REPEATED, path=True)


@pytest.fixture
def end(monkeypatch: Patch) -> Iterator[End]:
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


def test_pillow_does_not_warn_of_metadata(end: End) -> None:
    warn, about = warnings.warn_explicit, ("Corrupt EXIF", UserWarning, "f.py", 1)
    assert end(lambda _: warn(*about, "PIL.TiffImagePlugin")) is None


_SAME = [("gs://b/~", "gs://b/~"), ("a~", "a~"), ("a=~/x", "a=~/x")]


@pytest.mark.parametrize(
    ("given", "path"), [("~/x", "/home/me/x"), ("file:///a/~", "/a/~"), *_SAME]
)
def test_a_path_is_as_a_shell_gives_it(monkeypatch: Patch, given: str, path: str) -> None:
    """Also that of name=path, where that is what a flag takes."""
    monkeypatch.setenv("HOME", "/home/me")
    asked = parse(_Request, ["s", f"--folder={given}", f"--feed={given}", f"--feed=n={given}"])
    both = (path, f"n={path}") if "=" not in given else ("a=/home/me/x", f"n={given}")
    assert (asked.folder, asked.feed) == (path, both)


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_lists_the_flags_and_runs_nothing(end: End, capsys: Capture, flag: str) -> None:
    assert end(Mock(side_effect=AssertionError), flag, "--count=nonsense") == 0
    output = capsys.readouterr().out
    assert output.startswith("Does a thing.")
    assert "--rate: Of change. Above 0." in output


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        *((given, given) for given in ("--count=0", "--count=x", "--rate=inf", "--rate=0")),
        ("--rate=nan", "--rate=nan: must be a finite number above 0"),
        ("--rate=1e39", "--rate=1e+39: must be a finite number above 0 that a float32 can hold"),
        *((f"--rate={rate}", f"--rate={rate}: must be") for rate in ("1e-60", "1.1e-38")),
        ("--share=1", "must be a number from 0 and below 1"),
        ("--share=nan", "--share=nan"),
        ("--folder=m\udcff", r"--folder=m\xff must be UTF-8"),
    ],
)
def test_usage_errors_are_a_line(end: End, capsys: Capture, argument: str, message: str) -> None:
    assert end(Mock(side_effect=AssertionError), argument) == 2
    error = capsys.readouterr().err
    assert error.startswith("script.py: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "error", [UserError("two\nlines"), FileNotFoundError(2, "No such file", "two lines")]
)
def test_users_errors_are_one_line_and_1(end: End, capsys: Capture, error: Exception) -> None:
    assert end(Mock(side_effect=error)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("script.py: error: ")
    assert "two lines" in line


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("ours")])
def test_a_defect_keeps_its_traceback(end: End, error: Exception) -> None:
    with pytest.raises(type(error)):
        end(Mock(side_effect=error))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_their_code(end: End, number: signal.Signals, code: int) -> None:
    assert end(lambda _: os.kill(os.getpid(), number)) == code


@pytest.mark.parametrize("after", [RuntimeError("of C++"), UserError("of a run"), None])
def test_a_signal_that_comes_while_an_error_is_made_counts(
    end: End, capsys: Capture, after: Exception | None
) -> None:
    """pybind11 puts an error of its own in the place of the exit."""

    def main(_: _Request) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            if after is not None:
                raise after from None
        return 0

    assert end(main) == 143
    assert "Traceback" not in capsys.readouterr().err


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _without_reader() -> int:
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


@pytest.mark.parametrize("arguments", [[], ["--help"]])
@pytest.mark.parametrize("stdout", [_full, _without_reader])
def test_output_that_cannot_be_written_is_one_line_unless_nobody_reads_it(
    end: End, capsys: Capture, monkeypatch: Patch, arguments: list[str], stdout: Callable[[], int]
) -> None:
    """It is short enough to be held back until the end."""
    with open(stdout(), "w") as file:  # Its end would raise, were anything still held then.
        monkeypatch.setattr(sys, "stdout", file)
        assert end(lambda _: print("done"), *arguments) == 1
    line = "script.py: error: [Errno 28] No space left on device: 'stdout'\n"
    assert capsys.readouterr().err == (line if stdout is _full else "")


def test_logs_go_to_stderr_as_they_are(end: End, capsys: Capture) -> None:
    def main(request: _Request) -> None:
        logging.info("at step %d", request.count)
        logging.warning("odd")
        logging.info("a name\nerror: of two  lines")

    assert end(main) is None
    captured = capsys.readouterr()
    assert captured.err == "at step 3\nwarning: odd\na name error: of two  lines\n"
    assert captured.out == ""


# What of a script reaches the terminal, and what does not.

_SCRIPT = """
import os, sys
from dataclasses import dataclass
from cli.run import run
from cli.run import Supervisor

def main(values):
    with open(sys.argv[0] + ".txt", "w") as file:
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        file.write(f"{sys.stdin.read()}{file.fileno() > 2}")

run(main, dataclass(type("Request", (), {})), "Does a thing.", {supervisor})
"""
_STREAMS = ("<&-", ">&-", "2>&-")
_CLOSED = [closed for count in (1, 2, 3) for closed in itertools.combinations(_STREAMS, count)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\x1b[31mX", "x\\u001b[31mX"),
        ("a\rforged", "a\\u000dforged"),
        ("\x9b2J\x7f", "\\u009b2J\\u007f"),
        ("abc\u202edef", "abc\\u202edef"),
        ("class\tKätzchen 猫\n[0.1, 0.2] \\x1b\n", "class\tKätzchen 猫\n[0.1, 0.2] \\x1b\n"),
    ],
)
def test_what_it_would_obey_is_escaped_and_json_stays_json(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("supervisor", [None, "Supervisor('give it less')"])
@pytest.mark.parametrize("closed", _CLOSED, ids=" ".join)
def test_closed_streams(tmp_path: Path, closed: tuple[str, ...], supervisor: str | None) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("{supervisor}", str(supervisor)))
    ended = subprocess.run(
        ["sh", "-c", f'"$0" "$1" {" ".join(closed)}', sys.executable, str(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0
    assert ended.stdout == ("" if ">&-" in closed else "to stdout\n")
    assert ended.stderr == ("" if "2>&-" in closed else "to stderr\n")
    assert (tmp_path / "script.py.txt").read_text() == "True"


def test_a_tensorflow_that_cannot_be_imported_is_one_line(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(OSError, match="TensorFlow cannot be imported: "):
        terminal.import_tensorflow()


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [("", False), ("0", False), ("1024", False), ("1025", True), ("-4", True), ("two", True)],
)
def test_too_many_threads(monkeypatch: Patch, name: str, text: str, is_wrong: bool) -> None:
    monkeypatch.setenv(name, text)
    said = terminal.thread_variables_error()
    assert (said is not None and f"{name}={text} " in said) == is_wrong


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_import_swallows_a_signal(tmp_path: Path, number: int, code: int) -> None:
    """As a module does that tries to import another, and goes on without it."""
    lines = ("import contextlib, os", "with contextlib.suppress(BaseException):")
    kill = f"    os.kill(os.getpid(), {int(number)})"
    (tmp_path / "tensorflow.py").write_text("\n".join((*lines, kill)))
    imported = "from cli.terminal import import_tensorflow; import_tensorflow()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    assert run_python("-c", imported, env=environment).returncode == code


def test_the_handlers_of_before_the_import_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    terminal.import_tensorflow()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_import_leaves_out_what_waits_until_it_is_asked_for() -> None:
    """As this TensorFlow does it: another may load Keras elsewhere, or need the collector."""
    check = """
import gc, sys
from cli.terminal import import_tensorflow
import_tensorflow()
from training import loop  # And all that a run needs.
assert not [name for name in sys.modules if name.partition(".")[0] == "keras"]
assert gc.isenabled() and gc.get_freeze_count() > 100_000
import tensorflow as tf
from tensorflow.keras import layers
import keras
assert layers.Dense is keras.layers.Dense is tf.keras.layers.Dense
assert tf.keras.optimizers.Adam is keras.optimizers.Adam
assert "keras.src.optimizers" in sys.modules
"""
    run_python("-c", check, check=True)
