"""The workers of a run: how they find each other, bring their sums together, and end as one.

`CollectiveGather` of TensorFlow's own server carries all that they say to each other. After the
hello there is one such operation of one size, which all run in the same order: so whoever fails can
say so in its next turn, whatever the others are waiting for. Operations that add are not used, as
the order of their additions depends on the number of workers.
"""

import hashlib
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf
from absl import logging

from cli.run import ENDS_AT_ONCE
from cli.terminal import end_at_once, processors
from errors import TrainingError, UserError, first_few, reason
from training import resume
from training.config import RunConfig
from training.shards import Row, ShardedSession, Share
from training.task import Alone, Task
from training.workers import Place, enter_network, host_and_port, present_place

_FAILED = -1  # A worker's flag; others are 0 and the number of the signal that asks it to stop.
_HEADER = 2  # Words before the content: the flag, and the length of a text.
_HELLO_WORDS = 1 << 14
_LEAST_WORDS = 1 << 10  # So that the words of an error find room.
_PROBE_SECONDS = 1.0
_PATIENCE = 10  # Timeouts until workers that answer, but do not go on, end the run all the same.
_PARTING_SECONDS = 5.0

Words = np.ndarray[Any, np.dtype[np.int32]]


class LostError(TrainingError):
    """Another worker has failed or is out of reach: there is nobody to be told."""


class Team:
    """All workers of a run, as one of them is in touch with them."""

    session: ShardedSession  # Whose rows are exchanged; `sharded_session` gives it.

    def __init__(
        self, place: Place, stop: Callable[[], int | None], start_timeout: float, timeout: float
    ) -> None:
        """Starts the server, and waits until every other one answers.

        Raises:
          TrainingError: the port is taken, or a worker has not come in `start_timeout` seconds.
        """
        self.place = place
        self._others = [rank for rank in range(place.workers) if rank != place.rank]
        self._stop, self._start_timeout, self._timeout = stop, start_timeout, timeout
        self.stopping: int | None = None  # As of `Alone`, and the same for all workers.
        self._waiting: tuple[float, float] | None = None  # Since when, and for how long at most.
        self._is_over = False
        self._exchanges, self._exchange_seconds = 0, 0.0
        if place.network is not None:
            enter_network(place.network)
        self._config = _session_config(place.rank)
        self._server = _start_server(place, self._config)
        self._await_others()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self._gather, self._words = self._make_gather(_HELLO_WORDS, key=1), _HELLO_WORDS

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Tells the others how it ended, and waits until none of them needs this process."""
        if isinstance(error, LostError):
            return
        if error is None:
            self._turn(0)
            if self._exchanges:
                took = self._exchange_seconds * 1e3 / self._exchanges
                told = "an exchange took %.2f ms, waiting included: %d bytes to each other worker"
                logging.info(told, took, 4 * self.session.row_size)
        else:
            told = str(error) if isinstance(error, UserError) else f"{kind}: {error}"
            with suppress(LostError):
                self._turn(_FAILED, told.encode())
        self._part()

    def greet(self, told: Mapping[str, Any], row_size: int) -> None:
        """Compares what each worker says of its run with what worker 0 says.

        From then on rows of `row_size` numbers can be exchanged. LostError names who differs.
        """
        text = json.dumps(told, sort_keys=True).encode()[: 4 * _HELLO_WORDS]
        texts = [_text_of(part) for part in self._turn(0, text, self._start_timeout)]
        for rank, other in enumerate(texts):
            if other != texts[0]:
                self._differs(rank, _difference(texts[0], other))
        self._words = max(row_size, _LEAST_WORDS)
        self._gather = self._make_gather(self._words, key=2)

    def begin(self, task: Task) -> None:
        """Gives all workers worker 0's variables, and compares what they make of the first shard.

        LostError names who differs.
        """
        session, is_chief = self.session, self.place.rank == 0
        values = session.variables().values() if is_chief else ()
        given = self.share(b"".join(np.ascontiguousarray(value).tobytes() for value in values))
        if not is_chief:
            start, found = 0, {}
            for name, spec in session.specs.items():
                dtype, count = np.dtype(spec.dtype), math.prod(spec.shape)
                found[name] = np.frombuffer(given, dtype, count, start).reshape(spec.shape)
                start += found[name].nbytes
            session.initialize(found)
        step = int(session.variables()[resume.STEP])
        if step < task.last_step:
            first = slice(0, task.batch_size // session.part.shards)
            with closing(task.batches(step, step + 1, first)) as batches:
                row = session.row(next(batches), 0, np.zeros(session.row_size, np.float32))
            self.compare(lambda: hashlib.sha256(row.data).digest(), "its first gradient")

    def exchange(self, row: Row) -> Sequence[Row]:
        """The sums of all workers, by rank, for that of this one; also who asks to stop."""
        began = time.monotonic()
        parts = self._turn(self._stop() or 0, row.view(np.uint8))
        self._exchanges += 1
        self._exchange_seconds += time.monotonic() - began
        self.stopping = max(int(part[0]) for part in parts) or None
        return [part[_HEADER : _HEADER + len(row)].view(np.float32) for part in parts]

    def compare(self, digest: Callable[[], bytes], what: str) -> None:
        """LostError, which names who differs, unless the digest is the same for all."""
        own = digest()
        found = [part[_HEADER:].tobytes()[: len(own)] for part in self._turn(0, own)]
        for rank, other in enumerate(found):
            if other != found[0]:
                self._differs(rank, f"{what} has other bytes: is it another kind of processor?")

    def share(self, content: bytes) -> bytes:
        """The content that worker 0 gives, for all; that of the others is not looked at."""
        length = np.array([len(content)], np.int64)
        (size,) = self._turn(0, length.tobytes())[0][_HEADER : _HEADER + 2].view(np.int64)
        room, pieces = 4 * self._words, []
        for start in range(0, int(size), room):
            parts = self._turn(0, content[start : start + room])
            pieces.append(parts[0][_HEADER:].tobytes())
        return b"".join(pieces)[: int(size)]

    # One turn: all workers run the same operation.

    def _make_gather(self, words: int, key: int) -> Callable[[Words], Words]:
        count, device = self.place.workers, f"/job:worker/task:{self.place.rank}/device:CPU:0"
        graph = tf.Graph()
        with graph.as_default(), tf.device(device):
            given = tf.compat.v1.placeholder(tf.int32, [_HEADER + words])
            gathered = tf.raw_ops.CollectiveGather(
                input=given,
                group_size=count,
                group_key=1,
                instance_key=key,
                shape=[(_HEADER + words) * count],
            )
        session = tf.compat.v1.Session(self._server.target, graph, self._config)
        call: Callable[[Words], Words] = session.make_callable(gathered, [given])
        return call

    def _turn(self, flag: int, content: Any = b"", timeout: float | None = None) -> list[Words]:
        """Gives the others a flag and a content, and takes theirs; by rank.

        LostError where one of them has failed or cannot be reached.
        """
        words = np.zeros(_HEADER + self._words, np.int32)
        words[:_HEADER] = flag, len(content)
        room = words[_HEADER:].view(np.uint8)
        given = np.frombuffer(content, np.uint8)[: len(room)]
        room[: len(given)] = given
        self._waiting = time.monotonic(), timeout or self._timeout
        try:
            parts = np.split(self._gather(words), self.place.workers)
        except tf.errors.OpError as error:
            raise self._lost(error) from error
        finally:
            self._waiting = None
        if flag != _FAILED:
            for rank, part in enumerate(parts):
                if part[0] == _FAILED:
                    self._part()
                    said = _text_of(part).decode(errors="replace")
                    raise LostError(f"{self.place.named(rank)}: {said}")
        return parts

    def _lost(self, error: tf.errors.OpError) -> LostError:
        """What to say where a turn has failed, which is at once where a worker has ended."""
        time.sleep(_PROBE_SECONDS / 4)  # Its port may close a moment later than its connection.
        if gone := self._silent(self._others):
            return LostError(self._ended(gone))
        return LostError(f"the workers cannot reach each other: {reason(error)}")

    def _silent(self, ranks: Sequence[int], *, greeted: bool = True) -> list[int]:
        """Those of some workers that do not answer; see `_answers`."""
        return [rank for rank in ranks if not _answers(self.place, rank, greeted=greeted)]

    def _await_others(self) -> None:
        """Waits until all are there: the first turn would hang where one cannot be reached."""
        missing, deadline = self._others, time.monotonic() + self._start_timeout
        while missing := self._silent(missing):
            if time.monotonic() > deadline:
                late = f"did not come in {self._start_timeout:g} s (--start_timeout)"
                raise TrainingError(f"{self._named(missing)} {late}")
            if (number := self._stop()) is not None:
                sys.exit(128 + number)
            time.sleep(0.1)

    def _named(self, ranks: Sequence[int]) -> str:
        return ", ".join(map(self.place.named, ranks))

    def _ended(self, ranks: Sequence[int]) -> str:
        return (
            f"{self._named(ranks)} {'has' if len(ranks) == 1 else 'have'} ended, or cannot be "
            "reached; the checkpoints stay, and the same commands go on from the newest"
        )

    def _differs(self, rank: int, how: str) -> NoReturn:
        self._part()
        raise LostError(
            f"{self.place.named(rank)} is not as {self.place.named(0)}: {how}; all workers need "
            "the same flags, data, TensorFlow and kind of processor"
        )

    # The watchdog: a turn that does not come back cannot be broken off, but for the process.

    def _watch(self) -> None:
        while not self._is_over:
            time.sleep(_PROBE_SECONDS / 2)
            waiting = self._waiting
            if waiting is None:
                continue
            words = self._why_it_takes_so_long(time.monotonic() - waiting[0], waiting[1])
            if words is None or self._waiting != waiting:
                continue
            time.sleep(_PROBE_SECONDS)  # The turn itself may be about to say more.
            if self._waiting == waiting:
                end_at_once(words)

    def _why_it_takes_so_long(self, waited: float, timeout: float) -> str | None:
        """What ends a turn that has taken so many seconds; None where it is to go on."""
        if waited < _PROBE_SECONDS:
            return None
        if gone := self._silent(self._others, greeted=False):
            return self._ended(gone)
        if waited < timeout:
            return None
        if stopped := self._silent(self._others):
            return f"{self._named(stopped)}: no answer for {timeout:g} s (--worker_timeout)"
        if waited < _PATIENCE * timeout:
            return None
        return (
            f"the workers answer, but have not gone on for {waited:.0f} s: is one of them held "
            "up, or TF_CONFIG another for each?"
        )

    def _part(self) -> None:
        """Another turn, which no one ends before all have what the one before it brought.

        Whoever has that may go: so it does not matter if this turn fails, as the others are gone.
        """
        if self._is_over:
            return
        self._is_over = True

        def turn() -> None:
            with suppress(LostError):
                self._turn(0)

        last = threading.Thread(target=turn, daemon=True)
        last.start()
        last.join(_PARTING_SECONDS)


@contextmanager
def sharded_session(
    task: Task, config: RunConfig, stop: Callable[[], int | None]
) -> Iterator[tuple[ShardedSession, Alone | Team]]:
    """The session whose step adds up shards, and the workers that share these, if there are more.

    TrainingError where one does not come, or is of another run.
    """
    place = present_place()
    own = place.shards(config.shards)
    threads = config.intra_op_threads or max(1, processors() // config.workers)
    share = Share(config.shards, own, at_once=min(threads, len(own)))
    with ShardedSession(task.model, share, bfloat16=config.bfloat16) as session:
        if place.workers == 1:
            yield session, Alone(stop)
            return
        team = Team(place, stop, config.start_timeout, config.worker_timeout)
        told = {
            **task.identity,
            **resume.environment(),
            "train_steps": task.last_step,
            "save_every_steps": str(task.save_interval(config.save_every_steps)),
            "stop_after": config.stop_after,
            "workers": place.workers,
            "numbers in a row": session.row_size,
        }
        team.greet(told, session.row_size)
        session.exchange, team.session = team.exchange, session
        with team:
            yield session, team


def _session_config(rank: int) -> tf.compat.v1.ConfigProto:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
    config.device_filters.append(f"/job:worker/task:{rank}")
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def _start_server(place: Place, config: tf.compat.v1.ConfigProto) -> Any:
    """TensorFlow's server for this worker; TrainingError where its port is taken."""
    _, port = host_and_port(place.addresses[place.rank])
    cluster = tf.compat.v1.train.ClusterSpec({"worker": [*place.addresses]})
    try:
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("", port))
        ENDS_AT_ONCE.set()
        server = tf.compat.v1.train.Server(
            cluster, job_name="worker", task_index=place.rank, config=config
        )
    except (tf.errors.OpError, OSError) as error:
        raise TrainingError(
            f"the port of {place.named(place.rank)} is taken: give another one, or end what has "
            "it, such as a worker of the same index"
        ) from error
    if not place.is_launched:
        logging.warning(
            "port %d is open to whoever reaches this machine, and takes any graph without a "
            "password: see that only the workers do (docs/workers.md)",
            port,
        )
    return server


def _text_of(part: Words) -> bytes:
    """The text that a worker has given in a turn."""
    return part[_HEADER:].tobytes()[: part[1]]


def _answers(place: Place, rank: int, *, greeted: bool = True) -> bool:
    """Whether a worker's port is open; and, where it is to be `greeted`, whether it says a word.

    A server of gRPC begins each connection with its settings. That of a process that is stopped
    does not, although the system takes the connection.
    """
    try:
        address = host_and_port(place.addresses[rank])
        with socket.create_connection(address, _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            return not greeted or bool(connection.recv(1))
    except TimeoutError:
        return not greeted  # A machine that is out of reach may come back; see `_watch`.
    except OSError:
        return False


def _difference(expected: bytes, found: bytes) -> str:
    """The first few things in which two workers' words differ."""
    try:
        one, other = json.loads(expected), json.loads(found)
    except ValueError:  # Too long, and cut short.
        return "what it says of its run is another"
    differing = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return first_few([f"{k} is {other.get(k)!r} and not {one.get(k)!r}" for k in differing], 3)
