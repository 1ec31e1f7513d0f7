"""What of a script reaches the terminal, and what does not."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from cli import terminal
from cli.terminal import STDERR, STDOUT, descriptors_into, printable

PROJECT = Path(__file__).resolve().parent.parent.parent
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
_CLOSED = [
    closed
    for count in (1, 2, 3)
    for closed in itertools.combinations(("<&-", ">&-", "2>&-"), count)
]


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


def test_only_the_named_descriptors_are_led_away_and_given_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryFile() as file:
        with suppress(ZeroDivisionError), descriptors_into(file, [STDERR]):
            os.write(STDOUT, b"out\n")
            os.write(STDERR, b"held\n")
            raise ZeroDivisionError
        os.write(STDERR, b"err\n")
        file.seek(0)
        assert file.read() == b"held\n"
    assert capfd.readouterr() == ("out\n", "err\n")


@pytest.mark.parametrize("supervisor", [None, "Supervisor('give it less')"])
@pytest.mark.parametrize("closed", _CLOSED, ids=" ".join)
def test_a_closed_stream_is_empty_and_the_work_is_done(
    tmp_path: Path, closed: tuple[str, ...], supervisor: str | None
) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("{supervisor}", str(supervisor)))
    ended = subprocess.run(
        ["sh", "-c", f'"$0" "$1" {" ".join(closed)}', sys.executable, str(script)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert ended.returncode == 0
    assert ended.stdout == ("" if ">&-" in closed else "to stdout\n")
    assert ended.stderr == ("" if "2>&-" in closed else "to stderr\n")
    assert (tmp_path / "script.py.txt").read_text() == "True"


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
def test_no_import_swallows_a_signal(tmp_path: Path, number: int, code: int) -> None:
    """As a module does that tries to import another, and goes on without it."""
    lines = ("import contextlib, os", "with contextlib.suppress(BaseException):")
    kill = f"    os.kill(os.getpid(), {int(number)})"
    (tmp_path / "tensorflow.py").write_text("\n".join((*lines, kill)))
    imported = "from cli.terminal import import_tensorflow; import_tensorflow()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    command = [sys.executable, "-c", imported]
    assert subprocess.run(command, check=False, env=environment, timeout=300).returncode == code


def test_the_handlers_of_before_the_import_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    terminal.import_tensorflow()
    assert signal.getsignal(signal.SIGTERM) is before
