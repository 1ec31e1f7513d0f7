"""Scripts in a process of their own: how they end, whatever ends them.

The scripts here import no TensorFlow, and run as a user runs them.
"""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from cli import run as module
from cli.run import Supervisor
from tests.conftest import PROJECT, Patch

_SCRIPT = """
import os, resource, signal, sys, time
from dataclasses import dataclass
from cli import run as module
from cli.fields import flag
from cli.run import run
from errors import UserError

module.STOP_SECONDS = {stop_seconds}
module.ECHO_SECONDS = {impatient_seconds}
supervisor = module.Supervisor({needs_less!r}, waits_for_stop={waits_for_stop})

def main(values):
{body}

@dataclass
class Request:
    if {needs_less!r}:
        memory_limit_mb: int | None = flag("MiB.", None)

run(main, Request, "Does a thing.", supervisor)
"""
_OPTIONS: dict[str, Any] = {"needs_less": "give it less", "waits_for_stop": False}
_OPTIONS |= {"stop_seconds": 300, "impatient_seconds": 0.5}
Start = Callable[..., "subprocess.Popen[str]"]
End = tuple[int, str, list[str]]  # The exit code, what went to stdout, the lines on stderr.
_PIDS = "print(os.getppid(), os.getpid(), flush=True)"
# Not in one sleep: a signal that comes just before one is heeded after it.
_SLEEPS = "[time.sleep(0.1) for _ in range(3000)]"


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a script whose `main` does what is given."""

    def start_script(
        *body: str, flags: Sequence[str] = (), before: str = "", stderr: int = PIPE, **options: Any
    ) -> "subprocess.Popen[str]":
        options = {**_OPTIONS, **options, "body": "\n".join(f"    {line}" for line in body)}
        script = tmp_path / "script.py"
        script.write_text(before + _SCRIPT.format(**options))
        command = [sys.executable, str(script), *flags]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.Popen(command, stdout=PIPE, stderr=stderr, text=True, env=environment)

    return start_script


def _end(process: "subprocess.Popen[str]") -> End:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err.splitlines()


def _line(process: "subprocess.Popen[str]") -> str:
    """What the script prints next: with its first line, it has begun."""
    assert process.stdout is not None
    return process.stdout.readline()


_SHOWS = (
    "supervisor.fields()['terminal'].write('\\r50%')",
    "supervisor.fields()['terminal'].flush()",
    "os.write(2, b'\\x1b[31m')",
)
_TIME_LEFT = "print(round(signal.getitimer(signal.ITIMER_REAL)[0], -4))"
_THRICE = [f"supervisor.end_after({n}, 'x'); {_TIME_LEFT}" for n in (50_000, 90_000, 0)]
_LATE = ["supervisor.end_after(0.1, 'too long\\n\\u00fc')", "time.sleep(300)"]
_TOO_MUCH = "out of memory, or more than --memory_limit_mb allows"
_NO_LIMIT = "print(resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY)"


@pytest.mark.parametrize(
    ("body", "flags", "ended"),
    [
        (["return print('done')"], [], (0, "done\n", [])),
        (["return 3"], [], (3, "", [])),
        (["raise UserError('lost')"], [], (1, "", ["lost"])),
        # What takes its time is imported after the fork.
        (["print({'numpy', 'tensorflow'} & {*sys.modules})"], [], (0, "set()\n", [])),
        # A bar is text as any other, without a terminal.
        (_SHOWS, [], (0, "", ["\\u000d50%\\u001b[31m"])),
        # The time is up; a later call stands in place of the one before.
        (_LATE, [], (1, "", ["too long ü"])),
        (_THRICE, [], (0, "50000.0\n90000.0\n0.0\n", [])),
        (["bytearray(4 << 30)"], ["--memory_limit_mb=200"], (1, "", [_TOO_MUCH])),
        ([_NO_LIMIT], ["--memory_limit_mb=0"], (0, "True\n", [])),
        ([_NO_LIMIT], ["--memory_limit_mb=100000"], (0, "False\n", [])),
    ],
)
def test_a_script_ends_as_main(start: Start, body: list[str], flags: list[str], ended: End) -> None:
    code, out, lines = _end(start(*body, flags=flags))
    assert (code, out, [line.removeprefix("script.py: error: ") for line in lines]) == ended


_CHECK = (
    "F0000 00:00:1.1 17 env.cc:84] Check failed: ret == 0",
    "*** Check failure stack trace: ***",
    "    @     0x7f86831a62cd  tsl::thread::ThreadPool::ThreadPool()",
)
_FAILED_CHECK = (*(f"os.write(2, b'{line}\\n')" for line in _CHECK), "os.abort()")
_CRASHED = r"TensorFlow crashed \(SIGSEGV\): .*--memory_limit_mb allows: if so, give it less"
_KILLED = "killed by SIGKILL, as the system does when .*: give it less, .* --memory_limit_mb"
_CRASHED_TRAINER = (
    r"TensorFlow crashed \(SIGABRT\), such as where the system gives it no more memory or threads; "
    r"the checkpoints stay, and the same command goes on from the newest \[Check failed: ret == 0\]"
)
_NO_THREAD = 'raise RuntimeError("can\'t start new thread")'
_NO_FORK = "import os\ndef fork(): raise BlockingIOError(11, 'no')\nos.fork = fork\n"
_TRAINER: dict[str, Any] = {"needs_less": None, "waits_for_stop": True}


@pytest.mark.parametrize(
    ("body", "options", "said"),
    [
        (["os.kill(os.getpid(), signal.SIGSEGV)"], {}, _CRASHED),
        (["os.kill(os.getpid(), signal.SIGKILL)"], {}, _KILLED),
        (_FAILED_CHECK, _TRAINER, _CRASHED_TRAINER),
        ([_NO_THREAD], {}, "the system starts no more threads.*"),
        (["raise MemoryError"], _TRAINER, "out of memory"),
        (["pass"], {"before": _NO_FORK}, "the system starts no more processes.*"),
    ],
)
def test_crashes(start: Start, body: Sequence[str], options: dict[str, Any], said: str) -> None:
    code, _, (line,) = _end(start(*body, **options))
    assert code == 1
    assert re.fullmatch(f"script.py: error: {said}", line)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_work_or_after_it(start: Start, number: int, code: int) -> None:
    """As a script begins, and as Python ends, in both processes."""
    raised = f"os.kill(os.getpid(), {number})"
    top = "import os\nfrom cli.signals import end_at_signals\nend_at_signals()\n"
    assert _end(start("print('ran')", before=f"{top}{raised}\n")) == (code, "", [])
    at_exit = f"import atexit; atexit.register(lambda: {raised})"
    assert _end(start("print('ran')", at_exit)) == (code, "ran\n", [])
    assert _end(start("print('ran')", before=f"import os\n{at_exit}\n")) == (code, "ran\n", [])


def test_a_terminal_that_closes_stops_it_unless_that_is_ignored(start: Start) -> None:
    body = (_PIDS, "time.sleep(1.5)", "print('lived on')")
    for handler, code, out in (("SIG_DFL", 129, ""), ("SIG_IGN", 0, "lived on\n")):
        before = f"import signal; signal.signal(signal.SIGHUP, signal.{handler})"
        process = start(*body, before=before)
        _line(process)
        process.send_signal(signal.SIGHUP)
        assert _end(process) == (code, out, [])


@pytest.mark.parametrize(("given", "code"), [(0, 1), (130, 130)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stopped_trainer_whose_reader_has_gone_keeps_its_code(
    start: Start, monkeypatch: Patch, unbuffered: str, given: int, code: int
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    body = f"from cli.terminal import print_result; return print_result('x', {given})"
    process = start("print('go', flush=True)", "time.sleep(0.5)", body, waits_for_stop=True)
    _line(process)
    assert _end_unread(process) == (code, "")


def _end_unread(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code and stderr of one whose stdout nobody reads any more."""
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("supervised", [True, False])
def test_a_stderr_that_takes_nothing_changes_nothing(start: Start, supervised: bool) -> None:
    body = ("from absl import logging; logging.info('x')", "print('y', file=sys.stderr)")
    before = "" if supervised else "import os; del os.fork\n"
    with open("/dev/full", "w") as full:
        for end, code in (("return 7", 7), ("raise UserError('z')", 1)):
            process = start(*body, end, stderr=full.fileno(), before=before)
            assert process.wait(timeout=60) == code
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "\\xfc \\udcff"), ("utf-8", "\u00fc \\udcff")]
)
def test_what_encodings_lack(start: Start, monkeypatch: Patch, encoding: str, shown: str) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    text = r"'\u00fc \udcff'"
    body = f"from absl import logging; logging.info({text}); print({text})"
    code, out, lines = _end(start(body, f"raise UserError({text})"))
    assert (code, out, lines[0]) == (1, f"{shown}\n", shown)
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("number", "code", "to_both"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGINT, 130, True)],
)
def test_a_signal_is_heeded_once(start: Start, number: int, code: int, to_both: bool) -> None:
    """As Ctrl-C is to both; the child is not interrupted while it tidies up."""
    tidied = ("finally:", "    time.sleep(0.5)", "    print('tidied')")
    process = start("try:", f"    {_PIDS}", f"    {_SLEEPS}", *tidied)
    parent, child = map(int, _line(process).split())
    for pid in (child, parent) if to_both else (parent,):
        os.kill(pid, number)
    assert _end(process) == (code, "tidied\n", [])


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [
        (signal.SIGTERM, 143, {"stop_seconds": 1}),
        (signal.SIGINT, 130, {"impatient_seconds": 0.0}),  # Those after the first are no echo.
    ],
)
def test_a_child_that_heeds_nothing_is_killed(
    start: Start, number: int, code: int, options: dict[str, Any]
) -> None:
    blocked = f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])"
    process = start(blocked, _PIDS, "time.sleep(120)", "print('lived on')", **options)
    _line(process)
    process.send_signal(number)
    while process.poll() is None and "impatient_seconds" in options:
        time.sleep(0.1)  # Two that come at once are one to the system.
        process.send_signal(number)
    assert _end(process) == (code, "", [])


@pytest.mark.parametrize(
    ("number", "impatient", "saving", "ended"),  # In seconds.
    [
        (signal.SIGTERM, 0.0, 1.5, (7, "saved\n", [])),
        (signal.SIGINT, 300.0, 1.5, (7, "saved\n", [])),  # The second is an echo.
        (signal.SIGINT, 0.0, 120.0, (130, "", [])),
    ],
)
def test_a_trainer_is_waited_for_unless_a_second_sigint_hurries_it(
    start: Start, number: int, impatient: float, saving: float, ended: End
) -> None:
    """It tells of each signal it hears, and takes its time from the second one on."""
    process = start(
        "heard = []",
        "def hear(*_): heard.append(print('heard', flush=True))",
        f"signal.signal({int(number)}, hear)",
        _PIDS,
        "while len(heard) < 2: time.sleep(0.01)",
        f"time.sleep({saving})",
        "print('saved')",
        "return 7",
        waits_for_stop=True,
        stop_seconds=1,
        impatient_seconds=impatient,
    )
    _line(process)
    for _ in range(2):  # The second once the child has heard the first, and so the parent, too.
        process.send_signal(number)
        assert _line(process) == "heard\n"
    assert _end(process) == ended


def test_what_a_library_writes_to_stderr_is_no_command_to_a_terminal(start: Start) -> None:
    """Not by way of Python; a character may come in pieces."""
    body = (
        "for piece in (b'\\x1b[31m', b'gr\\xc3', b'\\xbcn', b'\\xff\\xc3'):",
        "    os.write(2, piece)",
        "    time.sleep(0.05)",
    )
    assert _end(start(*body)) == (0, "", ["\\u001b[31mgrün\\xff\\xc3"])


@pytest.mark.parametrize(("level", "shown"), [(None, 0), ("2", 0), ("0", 4)])
def test_chatter_is_dropped(
    start: Start, monkeypatch: Patch, level: str | None, shown: int
) -> None:
    stamp = "0000 00:00:1795168632.307581    2020"
    chatter = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        f"I{stamp} port.cc:153] oneDNN custom operations are on.",
        f"W{stamp} some.cc:1] A warning.",
        f"E{stamp} cuda_platform.cc:52] failed call to cuInit: none",
    ]
    errors = [f"E{stamp} other.cc:52] the disk is on fire", "Plain words"]
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    written = "".join(f"{line}\n" for line in chatter + errors).encode()
    assert _end(start(f"os.write(2, {written!r})")) == (0, "", chatter[:shown] + errors)


def test_a_bar_reaches_the_terminal_and_a_library_does_not(start: Start) -> None:
    leader, follower = pty.openpty()
    process = start(*_SHOWS, stderr=follower)
    os.close(follower)
    assert process.wait(timeout=300) == 0
    shown = b""
    with suppress(OSError):  # When all has been read, as nobody has the other end any more.
        while part := os.read(leader, 1 << 12):
            shown += part
    os.close(leader)
    assert process.stdout is not None
    process.stdout.close()
    assert shown.replace(b"\\u001b[31m", b"") == b"\r50%"


def test_ctrl_c_while_tensorflow_is_loading(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(f"import time\n{_SLEEPS}")
    leader, follower = pty.openpty()
    process = start(
        "from cli.terminal import import_tensorflow", "import_tensorflow()", stderr=follower
    )
    os.close(follower)
    assert os.read(leader, 1 << 12) == b"loading TensorFlow\r\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    shown = b""
    with suppress(OSError):  # When all has been read, as nobody has the other end any more.
        while part := os.read(leader, 1 << 12):
            shown += part
    assert shown.count(b"stopped while TensorFlow was loading: ") == 1
    os.close(leader)
    assert process.stdout is not None
    process.stdout.close()


def test_the_child_does_not_outlive_its_parent(start: Start) -> None:
    process = start(_PIDS, _SLEEPS)
    _, child = _line(process).split()
    process.kill()
    # Both have closed the pipes: both have ended.
    assert _end(process) == (-signal.SIGKILL, "", [])
    deadline = time.monotonic() + 300
    while _is_running(int(child)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_running(int(child))


def _is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_reader_that_has_gone_is_no_traceback(start: Start) -> None:
    process = start("while True:", "    print('x' * 1000)")
    _line(process)
    assert _end_unread(process) == (1, "")


def test_without_a_child_a_thread_ends_it(monkeypatch: Patch) -> None:
    """As where there is no fork; a call with 0 s calls it off."""
    said: list[str] = []
    monkeypatch.setattr("cli.run.end_at_once", said.append)
    supervisor = Supervisor("give it less")
    for seconds, line in ((30.0, "never"), (0.0, ""), (0.02, "late")):
        supervisor.end_after(seconds, line)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(300)
    assert said == ["late"]


# How much memory there is, and limits on it.


@pytest.mark.parametrize(
    ("content", "limit"),
    [(None, None), ("max\n", None), (f"{1 << 60}\n", None), (f"{300 << 20}\n", 300 << 20)],
)
def test_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: Patch, content: str | None, limit: int | None
) -> None:
    path = tmp_path / "memory.max"
    monkeypatch.setattr(module, "_CONTAINER", (path, tmp_path / "missing"))
    if content is not None:
        path.write_text(content)
    (total,) = re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert module.available_bytes() == (limit or pytest.approx(int(total) * 1024, rel=0.01))


@pytest.mark.parametrize(
    ("hard", "expected"), [(resource.RLIM_INFINITY, (1 << 30) + (128 << 20)), (1 << 20, 1 << 20)]
)
def test_threads_have_their_stacks(monkeypatch: Patch, hard: int, expected: int) -> None:
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, to: set_to.append((kind, to)))
    module.limit_memory(1 << 30)
    assert set_to == [(resource.RLIMIT_DATA, (expected, hard))]
