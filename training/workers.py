"""The workers of a run: which of them this process is, and those that `--workers` starts.

The environment's TF_CONFIG says which, a convention of TensorFlow's estimators and strategies that
Kubeflow and Vertex AI follow:
https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
With `--workers`, one command starts and watches all: one exit code, one error line. Each is a fork,
made before anything large is imported, with a TF_CONFIG of its own. What they write to stderr goes
through this process, which says once what several of them say. Where Linux allows it, they share a
network that is theirs alone: TensorFlow's server listens on all interfaces without a password. See
`network_namespaces(7)` and `user_namespaces(7)`.
"""

import ctypes
import json
import math
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from absl import logging

from cli.run import end_with_parent
from cli.signals import end_at_signals, stop_signals
from cli.terminal import EXIT_FAILED, exit_with_error, flush_streams
from errors import TrainingError

if sys.platform != "win32":
    import fcntl
if TYPE_CHECKING:
    from training.config import RunConfig

TF_CONFIG = "TF_CONFIG"
LAUNCHED = "launched"  # TF_CONFIG's entry for what `--workers` tells those it starts.
MOST_PORT = 65535
_ENDING_SECONDS = 4.0  # What the others are given once a worker has failed.
_REAP_SECONDS = 0.02
_REMEMBERED = 200  # Lines that are not said again.
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET, CLONE_NEWUSER
_SET_FLAGS, _IS_UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP of `netdevice(7)`


class Place(NamedTuple):
    """One worker of a run; the one of rank 0, the chief, alone saves, logs and tests."""

    rank: int = 0
    addresses: tuple[str, ...] = ()  # host:port of each worker, by rank; () for a run of one.
    is_launched: bool = False  # Whether `--workers` has started it.
    network: int | None = None  # The descriptor of a network of the workers' own.

    @property
    def workers(self) -> int:
        """How many share the work."""
        return len(self.addresses) or 1

    def named(self, rank: int) -> str:
        """A worker, as an error names it."""
        return f"worker {rank} ({self.addresses[rank]})"

    def shards(self, count: int) -> range:
        """This worker's of so many shards.

        TrainingError where each worker does not get as many as any other.
        """
        each, rest = divmod(count, self.workers)
        if rest or not each:
            raise TrainingError(
                f"{TF_CONFIG} has {self.workers} workers, which cannot share --shards={count} "
                f"evenly: give a power of two of workers, and --shards={self.workers} or a "
                "multiple of it"
            )
        return range(self.rank * each, (self.rank + 1) * each)


def present_place() -> Place:
    """The place that TF_CONFIG gives this process; that of a run of one without it.

    Raises:
      TrainingError: it is no JSON, or says anything that does not fit.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    if not text:
        return Place()
    try:
        return _place(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise TrainingError(
            f"{TF_CONFIG} cannot be used: {wrong}; expected such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error


def _place(told: dict[str, Any]) -> Place:
    cluster = told.get("cluster") or {}
    if unknown := sorted({*cluster} - {"chief", "master", "worker", "evaluator"}):
        raise ValueError(f"there is no place for a {unknown[0]} in its cluster, only for workers")
    chiefs = [*cluster.get("chief", ()), *cluster.get("master", ())]
    addresses = (*chiefs, *cluster.get("worker", ()))
    for address in addresses:
        host_and_port(address)
    if len({*addresses}) < len(addresses):
        raise ValueError("two of its workers have one address")
    if len(chiefs) > 1:
        raise ValueError("it has more than one chief")
    if len(addresses) <= 1:
        return Place()
    kind, index = told["task"]["type"], int(told["task"]["index"])
    if kind not in ("chief", "master", "worker") or kind not in cluster:
        raise ValueError(f"its task is a {kind}, and its cluster has no such workers")
    if not 0 <= index < len(cluster[kind]):
        raise ValueError(f"its task has the index {index}, of {len(cluster[kind])} of the kind")
    rank = index + (len(chiefs) if kind == "worker" else 0)
    launched = told.get(LAUNCHED)
    network = launched.get("network") if launched else None
    return Place(rank, addresses, launched is not None, network)


def host_and_port(address: object) -> tuple[str, int]:
    """The two parts of an address; an IPv6 host loses its brackets. ValueError where it is none."""
    host, _, port = str(address).rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) <= MOST_PORT):
        raise ValueError(f"{address!r} is no address such as host:2222")
    return host.strip("[]"), int(port)


def take_place(run: "RunConfig") -> None:
    """Makes this process a worker, where there are several; before TensorFlow is imported.

    With `--workers` it starts them, and returns in them alone. Results go to stdout, and news to
    stderr, from worker 0 only.

    Raises:
      TrainingError: the environment's TF_CONFIG does not fit.
    """
    place = present_place()
    if run.workers > 1:
        if place.workers > 1:
            raise TrainingError(f"give --workers={run.workers} or {TF_CONFIG}, not both")
        if not hasattr(os, "fork"):
            raise TrainingError("--workers needs a system that can fork; TF_CONFIG does without")
        launch(run.workers)
        place = present_place()
    if run.replay is not None and place.workers > 1:
        raise TrainingError(f"--replay computes all shards in one process: unset {TF_CONFIG}")
    place.shards(run.shards)
    if place.rank:
        logging.set_verbosity(logging.WARNING)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


# The workers of one machine.


class Network(NamedTuple):
    """Descriptors of a namespace of networks, and of users where only in that one may be had."""

    network: int
    user: int | None


def launch(count: int) -> None:
    """Forks the workers; returns in each of them."""
    network = own_network()
    if network is None:
        logging.warning(
            "the workers cannot have a network of their own here: their ports are open to whoever "
            "reaches this machine, without a password, while the run lasts (docs/workers.md)"
        )
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    life_read, life_write = os.pipe()  # Ends when this process does.
    pipes: dict[int, int] = {}  # Worker -> what it writes to stderr.
    children: dict[int, int] = {}  # Process -> worker.
    flush_streams()
    for rank in range(count):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            for other in (life_write, read, *pipes.values()):
                os.close(other)
            _become(rank, addresses, network, write, life_read)
            return
        os.close(write)
        pipes[rank], children[child] = read, rank
    os.close(life_read)
    _Watch(children, pipes).run()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on; all are, in a network of one's own."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _become(
    rank: int, addresses: list[str], network: Network | None, stderr: int, life: int
) -> None:
    """Makes this fork a worker."""
    end_at_signals()
    if network is not None and network.user is not None:
        _call("setns", network.user, _NEW_USER)  # While there is one thread; the network is later.
    told: dict[str, Any] = {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": rank},
        LAUNCHED: {"network": network and network.network},
    }
    os.environ[TF_CONFIG] = json.dumps(told)
    os.dup2(stderr, 2)
    os.close(stderr)
    threading.Thread(target=end_with_parent, args=(life,), daemon=True).start()


class _Watch:
    """Passes on what the workers write, passes signals on to them, and ends as they do."""

    def __init__(self, children: dict[int, int], pipes: dict[int, int]) -> None:
        self._children, self._pipes = children, pipes
        self._codes: dict[int, int] = {}  # Worker -> exit code, or minus the signal that ended it.
        self._failed: list[int] = []  # Workers, in the order in which they ended by themselves.
        self._deadline = math.inf  # When those that are left are killed.
        self._request = math.inf  # When they are asked to stop: one was, before it had begun.
        self._lock = threading.Lock()
        self._said: deque[str] = deque(maxlen=_REMEMBERED)
        self._errors: list[str] = []

    def run(self) -> NoReturn:
        """Waits for the end of all; those that do not end after a failure are killed."""
        for number in stop_signals():
            signal.signal(number, self._send)
        readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in self._pipes.values()
        ]
        for reader in readers:
            reader.start()
        while len(self._codes) < len(self._children):
            time.sleep(_REAP_SECONDS)
            self._reap()
            if time.monotonic() > self._deadline:
                self._send(signal.SIGKILL)
            elif time.monotonic() > self._request:
                self._request = math.inf
                self._send(signal.SIGTERM)
        for reader in readers:
            reader.join(_ENDING_SECONDS)
        self._end()

    def _read(self, pipe: int) -> None:
        """Writes a worker's lines to stderr, but for its error, and for what another has said."""
        begins = f"{os.path.basename(sys.argv[0])}: error: "
        with open(pipe, encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
            for line in lines:
                with self._lock:
                    if line.startswith(begins):
                        self._errors.append(line[len(begins) :])
                    elif line not in self._said:
                        self._said.append(line)
                        sys.stderr.write(line)
                        sys.stderr.flush()

    def _reap(self) -> None:
        for child, rank in self._children.items():
            if rank in self._codes:
                continue
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            code = os.waitstatus_to_exitcode(status)
            self._codes[rank] = code
            now = time.monotonic()
            if code in {128 + number for number in stop_signals()}:
                self._request = min(self._request, now + _ENDING_SECONDS)
            elif code:
                if now < self._deadline:
                    self._failed.append(rank)
                self._deadline = min(self._deadline, now + _ENDING_SECONDS)

    def _send(self, number: int, _: FrameType | None = None) -> None:
        """Sends a signal to all workers that are left; it is also what handles one that comes."""
        for child, rank in self._children.items():
            if rank not in self._codes:
                with suppress(ProcessLookupError):
                    os.kill(child, number)

    def _end(self) -> NoReturn:
        """Exits with one line of what went wrong: a signal before what others say of it."""
        if not self._failed:
            flush_streams()
            os._exit(max(self._codes.values()))
        for rank in self._failed:
            number = -self._codes[rank]
            if number == signal.SIGALRM:  # Whoever started us knows what to say.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif number > 0:
                ended = f"worker {rank} was ended by {signal.Signals(number).name}"
                kept = "the checkpoints stay, and the same command goes on from the newest"
                self._errors.insert(0, f"{ended}; {kept}")
        said = self._errors or ["a worker has failed"]
        # Of one failure, the worker's own words: those of the others begin with its name.
        own = [line for line in said if said[0].endswith(line)]
        exit_with_error(min(own, key=len), EXIT_FAILED)


# A network with nothing but the workers.


def _call(name: str, *arguments: int) -> None:
    """A function of the C library, which Python 3.12 is the first to have; OSError as it says."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_network() -> Network | None:
    """Makes a network with nothing but a loopback; None where the system does not allow it.

    A process of its own makes it: this one stays where it is.
    """
    if sys.platform != "linux":
        return None
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        with suppress(OSError, AttributeError):
            theirs.send(b"u" if _enter_new() else b"n")
            theirs.recv(1)  # Until the parent has opened what is here.
        os._exit(0)
    theirs.close()
    try:
        kind = ours.recv(1)
        if not kind:
            return None
        user = os.open(f"/proc/{child}/ns/user", os.O_RDONLY) if kind == b"u" else None
        return Network(os.open(f"/proc/{child}/ns/net", os.O_RDONLY), user)
    except OSError:
        return None
    finally:
        ours.close()
        os.waitpid(child, 0)


def _enter_new() -> bool:
    """Enters a new network; whether that took a new namespace of users as well."""
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_NETWORK)
        needs_user = False
    except PermissionError:
        _call("unshare", _NEW_USER | _NEW_NETWORK)
        needs_user = True
        for name, text in (
            ("uid_map", f"{user} {user} 1"),
            ("setgroups", "deny"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _IS_UP))
    return needs_user


def enter_network(descriptor: int) -> None:
    """Moves this thread, and those that it starts from then on, into a network."""
    _call("setns", descriptor, _NEW_NETWORK)
