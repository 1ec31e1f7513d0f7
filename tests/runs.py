"""Running trainers in tests: stopped at a step, and what a run leaves."""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from training import loop
from training.config import RunConfig
from training.task import Batch, Task

_Config = TypeVar("_Config")


def train_watched(task: Task, run: RunConfig, at_step: Callable[[int], object]) -> loop.Outcome:
    """Trains; calls `at_step` with the number of each batch before it is handed out."""

    def batches(start: int, stop: int) -> Generator[Batch, None, None]:
        for step, batch in enumerate(task.batches(start, stop), start):
            at_step(step)
            yield batch

    return loop.train(task._replace(batches=batches), run)


def stop_at(step: int, number: signal.Signals = signal.SIGTERM) -> Callable[[int], None]:
    """For `train_watched`: the signal arrives with the batch of this step, which is finished."""
    return lambda k: send(number) if k == step else None


def send(number: signal.Signals = signal.SIGTERM, to: int | None = None) -> None:
    """Sends this process, which trains, a signal, and waits until the main thread has taken it.

    The system hands it to the main thread, or to the thread whose identity is given.
    """
    taker = signal.getsignal(number).__self__  # type: ignore[union-attr]
    if to is None:
        os.kill(os.getpid(), number)
    else:
        signal.pthread_kill(to, number)
    until = time.monotonic() + 60
    while taker.received is None:
        assert time.monotonic() < until
        time.sleep(0.001)


def with_run(config: _Config, **changes: Any) -> _Config:
    """The same config with other fields of its run, or of its own."""
    run: RunConfig = config.run  # type: ignore[attr-defined]
    of_run = {k: v for k, v in changes.items() if hasattr(run, k)}
    own = {k: v for k, v in changes.items() if k not in of_run}
    return dataclasses.replace(config, run=dataclasses.replace(run, **of_run), **own)  # type: ignore[type-var]


def variables(run: RunConfig) -> dict[str, bytes]:
    """The bytes of all variables of the newest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(run.ckpt_dir))
    return {n: reader.get_tensor(n).tobytes() for n in reader.get_variable_to_shape_map()}


def metrics(run: RunConfig) -> bytes:
    """The very bytes of the log."""
    return Path(run.ckpt_dir, "logs", "metrics.jsonl").read_bytes()


def lines(run: RunConfig) -> list[dict[str, float]]:
    """The lines of the log."""
    return [json.loads(line) for line in metrics(run).splitlines()]


def same(run: RunConfig, other: RunConfig) -> bool:
    """Whether two runs have ended with equal bytes."""
    return variables(run) == variables(other) and metrics(run) == metrics(other)


def manifests(run: RunConfig) -> dict[int, dict[str, Any]]:
    """Step -> the manifest of each committed checkpoint, by rising step."""
    found = (json.loads(path.read_bytes()) for path in Path(run.ckpt_dir).glob("*.manifest"))
    return {each["step"]: each for each in sorted(found, key=lambda each: int(each["step"]))}


def meta_graph(prefix: str | Path) -> "tf.compat.v1.MetaGraphDef":
    """What is in the `.meta` file of a checkpoint."""
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(Path(f"{prefix}.meta").read_bytes())
    return meta


def flip_a_bit(path: Path) -> None:
    """Of the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def check_description(
    prefix: str, class_names: Sequence[str], inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> "tf.compat.v1.MetaGraphDef":
    """What whoever predicts needs to know of a classifier of uint8 pixels, as its file tells it."""
    meta = meta_graph(prefix)
    names = meta.collection_def["class_names"].bytes_list.value
    assert [name.decode() for name in names] == list(class_names)
    scale = meta.collection_def["input_scale"].float_list.value
    assert np.array(scale, np.float32) == np.float32(1 / 255)
    signature = meta.signature_def["serving_default"]
    assert {k: t.name for k, t in signature.inputs.items()} == inputs
    assert {k: t.name for k, t in signature.outputs.items()} == outputs
    assert {node.device for node in meta.graph_def.node} == {""}
    return meta
