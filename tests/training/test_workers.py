"""Workers as a user starts them: by `--workers`, and by TF_CONFIG; how they end, and what is said.

That bytes are equal, and that kills lose nothing, is what the campaign finds, here a short one.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT, as_with_onednn, run_python
from training.workers import own_network

SECONDS = 240  # That a command may take here.
FLAGS = ("--shards=4", "--train_steps=60", "--batch_size=16")


class Command(NamedTuple):
    """A command that was started."""

    process: int
    base: Path

    @property
    def error(self) -> str:
        """What it has written to stderr so far."""
        path = Path(f"{self.base}.err")
        return path.read_text(errors="replace") if path.exists() else ""

    def errors(self) -> list[str]:
        """Its error lines."""
        return [line for line in self.error.splitlines() if ": error: " in line]

    def code(self) -> int:
        """Waits for its end."""
        path = Path(f"{self.base}.code")
        _wait_for(path.exists, f"the end of {self.base.name}: {self.error}")
        return int(path.read_text())

    def says(self, text: str) -> "Command":
        """Waits until it has written this."""
        _wait_for(lambda: text in self.error, f"{text!r} of {self.base.name}")
        return self

    def children(self) -> list[int]:
        """The processes below it, the workers' own last."""
        found, waiting = [], [self.process]
        while waiting:
            number = waiting.pop(0)
            with suppress(OSError):
                below = Path(f"/proc/{number}/task/{number}/children").read_text().split()
                found += [*map(int, below)]
                waiting += [*map(int, below)]
        return found


def _wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


Start = Callable[..., Command]


@pytest.fixture(scope="module")
def start_any() -> Iterator[Callable[[list[str], dict[str, str], Path], Command]]:
    """Starts commands, and ends at the end what is left of them."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.training.started"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    started = []

    def start(argv: list[str], environment: dict[str, str], base: Path) -> Command:
        request = {"argv": argv, "environment": environment, "base": str(base)}
        server.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        server.stdin.flush()  # type: ignore[union-attr]
        started.append(int(server.stdout.readline()))  # type: ignore[union-attr]
        return Command(started[-1], base)

    yield start
    with server:
        server.stdin.close()
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


@pytest.fixture
def start(start_any: Callable[..., Command], images: Path, tmp_path: Path) -> Start:
    """Starts train_cnn.py with some flags, as one of several workers where it is given a rank."""

    def start(name: str, *flags: str, rank: int | None = None, ports: Any = ()) -> Command:
        told = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": rank},
        }
        environment = {} if rank is None else {"TF_CONFIG": json.dumps(told)}
        given = [*FLAGS, f"--data={images}", f"--ckpt_dir={tmp_path / 'run'}", *flags]
        return start_any(["train_cnn.py", *given], environment, tmp_path / name)

    return start


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two images of two classes, in files."""
    folder = tmp_path_factory.mktemp("data") / "images"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    for number, each in enumerate(pixels):
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(folder / str(number % 2) / f"{number:02d}.png")
    return folder


@pytest.fixture
def ports() -> list[int]:
    """Two ports that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in (one, other)]


def _two(start: Start, ports: list[int], *flags: str, other: tuple[str, ...] = ()) -> list[Command]:
    """The same command on two workers, with more flags for the other one."""
    return [
        start("zero", *flags, rank=0, ports=ports),
        start("one", *flags, *other, f"--ckpt_dir={ports[0]}/nowhere", rank=1, ports=ports),
    ]


def _lasting(folder: Path) -> dict[str, bytes]:
    ends = (".index", ".data-00000-of-00001", ".meta", "checkpoint")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(ends)}
    return {**files, "metrics": (folder / "logs" / "metrics.jsonl").read_bytes()}


def test_the_campaign_finds_equal_bytes_after_ten_kills() -> None:
    """Four kinds of runs, on 1, 2 and 4 workers, moved between them, and killed."""
    given = ("--kills=10", "--shards=4", "--steps=40")
    ended = run_python("-m", "benchmarks.kill_campaign", *given, timeout=1100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "LOST" not in ended.stdout
    counts = dict(re.findall(r"^  (.*): (\d+)$", ended.stdout, re.MULTILINE))
    for kind in ("cnn on images", "mlp", "fine-tuned", "linear"):
        for how in ("on 1 workers", "on 2 workers", "on 4 workers", "stopped three times"):
            assert counts[f"{kind}, {how}: ended as the unbroken run"] == "1"
    killed = [int(n) for said, n in counts.items() if re.search("after a kill.*: ended as", said)]
    assert sum(killed) == 10
    ends = [int(n) for said, n in counts.items() if re.match(r"killed .*, exit code 1$", said)]
    assert sum(ends) == 10


def test_two_that_tf_config_names_train_as_one_does(
    start: Start, ports: list[int], tmp_path: Path
) -> None:
    """One of them has no folder, prints no result, and says which port is open."""
    commands = _two(start, ports)
    assert [command.code() for command in commands] == [0, 0]
    zero, one = commands
    assert (tmp_path / "zero.out").read_text().startswith("step 60: ")
    assert (tmp_path / "one.out").read_text() == ""
    warning, *others = as_with_onednn(one.error).splitlines()
    assert warning.startswith(f"warning: port {ports[1]} is open to whoever reaches this machine")
    assert others == []
    assert f"port {ports[0]} is open" in zero.error
    alone = start("alone", f"--ckpt_dir={tmp_path / 'alone'}")
    assert alone.code() == 0
    assert _lasting(tmp_path / "alone") == _lasting(tmp_path / "run")
    assert "is open" not in alone.error
    assert start("again", "--replay=all").code() == 0
    assert (tmp_path / "again.out").read_text().startswith(f"equal: {tmp_path / 'run'} has the ")


def test_all_stop_where_the_best_stays_the_best(
    start: Start, ports: list[int], tmp_path: Path
) -> None:
    """Worker 0 alone tests; the others are told that it is over."""
    kept = ("--keep_best", "--validation_fraction=0.5", "--save_every_steps=3", "--stop_after=2")
    commands = _two(start, ports, *kept, "--batch_size=8")
    assert [command.code() for command in commands] == [0, 0]
    line = "--stop_after=2: no save since step "
    assert [line in command.error for command in commands] == [True, False]
    assert start("alone", *kept, "--batch_size=8", f"--ckpt_dir={tmp_path / 'alone'}").code() == 0
    assert _lasting(tmp_path / "alone") == _lasting(tmp_path / "run")
    steps = [int(path.stem.rpartition("-")[2]) for path in (tmp_path / "run").glob("*.meta")]
    assert max(steps) < 60


@pytest.mark.parametrize(("rank", "number", "code"), [(0, "SIGINT", 130), (1, "SIGTERM", 143)])
def test_a_signal_to_one_stops_all_at_one_step(
    start: Start, ports: list[int], tmp_path: Path, rank: int, number: str, code: int
) -> None:
    commands = _two(start, ports, "--train_steps=1000000", "--log_every_steps=5")
    commands[0].says("step 5/")
    os.kill(commands[rank].process, signal.Signals[number])
    assert [command.code() for command in commands] == [code, code]
    (said,) = re.findall(r"stopped at step (\d+) of 1000000", commands[0].error)
    assert (tmp_path / "run" / f"my-model-{said}.manifest").exists()
    assert [command.errors() for command in commands] == [[], []]


def test_one_that_is_killed_ends_the_other(start: Start, ports: list[int]) -> None:
    zero, one = _two(start, ports, "--train_steps=1000000", "--log_every_steps=5")
    zero.says("step 5/")
    os.kill(one.children()[-1], signal.SIGKILL)
    assert [zero.code(), one.code()] == [1, 1]
    (line,) = zero.errors()
    assert f"worker 1 (127.0.0.1:{ports[1]}) has ended, or cannot be reached" in line
    (line,) = one.errors()
    assert "killed by SIGKILL" in line


def test_one_that_is_stopped_ends_the_other(start: Start, ports: list[int]) -> None:
    flags = ("--train_steps=1000000", "--log_every_steps=5", "--worker_timeout=4")
    zero, one = _two(start, ports, *flags)
    zero.says("step 5/")
    os.kill(one.children()[-1], signal.SIGSTOP)
    assert zero.code() == 1
    (line,) = zero.errors()
    assert f"worker 1 (127.0.0.1:{ports[1]}): no answer for 4 s (--worker_timeout)" in line
    os.kill(one.children()[-1], signal.SIGCONT)
    assert one.code() == 1


def test_one_that_never_comes_and_a_port_that_is_taken(start: Start, ports: list[int]) -> None:
    zero = start("zero", "--start_timeout=3", rank=0, ports=ports)
    zero.says("is open to whoever")
    same = start("same", rank=0, ports=ports)
    assert (zero.code(), same.code()) == (1, 1)
    (line,) = zero.errors()
    assert line.endswith(f"worker 1 (127.0.0.1:{ports[1]}) did not come in 3 s (--start_timeout)")
    (line,) = same.errors()
    assert f"the port of worker 0 (127.0.0.1:{ports[0]}) is taken" in line


@pytest.mark.parametrize(
    ("flag", "difference"),
    [
        ("--seed=1", "seed is 1 and not 0"),
        ("--image_size=16", "image_size is 16 and not None"),
        ("--shards=2", "shards is 2 and not 4"),
        ("--classes=1,0", "classes is ['1', '0'] and not ['0', '1']"),
    ],
)
def test_one_of_another_run_is_named(
    start: Start, ports: list[int], flag: str, difference: str
) -> None:
    commands = _two(start, ports, other=(flag,))
    assert [command.code() for command in commands] == [1, 1]
    for command in commands:
        (line,) = command.errors()
        assert f"worker 1 (127.0.0.1:{ports[1]}) is not as worker 0" in line
        assert difference in line


def test_the_failure_of_one_is_what_all_say(
    start: Start, ports: list[int], images: Path, tmp_path: Path
) -> None:
    """Images are read as they are needed, and one is damaged on one worker's disk."""
    copied = tmp_path / "images"
    for path in images.glob("*/*.png"):
        copy = copied / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    flags = ("--data_memory_mb=0", f"--data={copied}", "--train_steps=1000000")
    zero, one = _two(start, ports, *flags, "--log_every_steps=5")
    zero.says("step 5/")
    for path in copied.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:-60])
    assert [zero.code(), one.code()] == [1, 1]
    for command in (zero, one):
        (line,) = command.errors()
        assert "--on_bad_image=skip goes on without it" in line


def test_a_loss_that_is_no_number_ends_all(start: Start) -> None:
    command = start("both", "--workers=2", "--learning_rate=1e30")
    assert command.code() == 1
    (line,) = command.errors()
    assert "try a lower --learning_rate" in line


def test_one_command_watches_its_workers(start: Start) -> None:
    """One that is killed ends it in one line; nothing is left, and the next one goes on."""
    command = start("both", "--workers=2", "--train_steps=1000000", "--log_every_steps=5")
    command.says("step 25/")
    os.kill(command.children()[-1], signal.SIGKILL)
    assert command.code() == 1
    (line,) = command.errors()
    assert "error: worker 1 was ended by SIGKILL; the checkpoints stay, and" in line
    assert "GRPC" not in command.error
    _wait_for(lambda: not command.children(), "the end of all")
    again = start("again", "--workers=4", "--train_steps=1000000", "--log_every_steps=5")
    again.says("resuming ").says("/1000000")
    os.kill(again.process, signal.SIGTERM)
    assert again.code() == 143, again.error
    assert again.errors() == []
    assert again.error.count("stopping after the present step") == 1


def test_a_port_is_open_only_where_there_is_no_network_of_its_own(start: Start) -> None:
    command = start("both", "--workers=2", "--train_steps=1000000", "--log_every_steps=5")
    command.says("step 5/")
    has_own = own_network() is not None
    assert ("their ports are open to whoever reaches" in command.error) == (not has_own)
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    places = {line.split()[9] for line in listening if line.split()[3] == "0A"}
    held = {
        link
        for child in command.children()
        for link in map(_link, Path(f"/proc/{child}/fd").iterdir())
        if link.startswith("socket:")
    }
    assert bool(held & {f"socket:[{place}]" for place in places}) == (not has_own)
    os.kill(command.process, signal.SIGINT)
    assert command.code() == 130


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


@pytest.mark.parametrize("loss", ["the folder is another run's", "the folder cannot be made"])
def test_what_stops_worker_0_at_the_start_stops_all(
    start: Start, ports: list[int], tmp_path: Path, loss: str
) -> None:
    if "made" in loss:
        (tmp_path / "run").write_text("a file")
        expected = "cannot be made"
    else:
        assert start("before", "--train_steps=10").code() == 0
        expected = "seed was 0, is now 1"
    zero, one = _two(start, ports, "--seed=1")
    assert [zero.code(), one.code()] == [1, 1]
    assert expected in zero.errors()[0]
    assert f"worker 0 (127.0.0.1:{ports[0]}): " in one.errors()[0]
    assert expected in one.errors()[0]


_COMPARE = """
from training.workers import present_place
from training.team import Team
place = present_place()
with Team(place, lambda: None, 60, 60) as team:
    team.greet({}, 10)
    team.compare(lambda: b"the same", "its model at step 5")
    team.compare(lambda: bytes([place.rank]), "its model at step 10")
"""


def test_a_model_with_other_bytes_is_named(
    start_any: Callable[..., Command], ports: list[int], tmp_path: Path
) -> None:
    def told(rank: int) -> dict[str, str]:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        return {"TF_CONFIG": json.dumps(task)}

    commands = [start_any(["-c", _COMPARE], told(r), tmp_path / str(r)) for r in range(2)]
    assert [command.code() for command in commands] == [1, 1]
    for command in commands:
        assert f"worker 1 (127.0.0.1:{ports[1]}) is not as worker 0" in command.error
        assert "its model at step 10 has other bytes" in command.error


def test_the_line_on_two_workers_is_printed_once(
    start_any: Callable[..., Command], tmp_path: Path
) -> None:
    given = ["train_linear.py", f"--ckpt_dir={tmp_path / 'run'}", "--shards=4", "--workers=2"]
    assert start_any(given, {}, tmp_path / "linear").code() == 0
    (line,) = (tmp_path / "linear.out").read_text().splitlines()
    assert line.startswith("step 300: w = 0.1000, b = 0.2000 in ")


def test_workers_of_one_command_and_of_tf_config_are_not_both(
    start: Start, ports: list[int]
) -> None:
    command = start("both", "--workers=2", rank=0, ports=ports)
    assert command.code() == 1
    assert "give --workers=2 or TF_CONFIG, not both" in command.errors()[0]
