"""Which worker of a run this process is, as the environment's TF_CONFIG says.

TF_CONFIG is the convention of TensorFlow's estimators and strategies, which Kubeflow and Vertex AI
follow: https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
Importing this imports no TensorFlow.
"""

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging

from errors import TrainingError

if TYPE_CHECKING:
    from training.config import RunConfig

TF_CONFIG = "TF_CONFIG"
LAUNCHED = "launched"  # TF_CONFIG's entry for what `training/launch.py` tells its workers.
MOST_PORT = 65535


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
        from training.launch import launch

        launch(run.workers)
        place = present_place()
    if run.replay is not None and place.workers > 1:
        raise TrainingError(f"--replay computes all shards in one process: unset {TF_CONFIG}")
    place.shards(run.shards)
    if place.rank:
        logging.set_verbosity(logging.WARNING)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
