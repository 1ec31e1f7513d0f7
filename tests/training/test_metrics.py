"""What a run writes beside its checkpoints."""

import json
import os
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf

from errors import TrainingError
from training.metrics import Metrics, MetricsLog

v1 = tf.compat.v1


def _write(path: Path, start: int, *steps: int) -> None:
    with MetricsLog(str(path), tf.Graph(), start) as log:
        for step in steps:
            log.write(Metrics(step, loss=1 / step, accuracy=0.5))


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "logs/metrics.jsonl").read_text().splitlines()]


def _steps_in_tensorboard(path: Path, tag: str = "loss") -> list[int]:
    """The steps of a scalar as TensorBoard shows them, by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "logs"))
    events.Reload()
    return [scalar.step for scalar in events.Scalars(tag)]


def test_a_line_has_the_step_and_the_numbers_there_are(tmp_path: Path) -> None:
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        log.write(Metrics(10, loss=0.25))
        log.write(Metrics(20, loss=0.125, accuracy=0.5, test_accuracy=0.75))
    assert _lines(tmp_path) == [
        {"step": 10, "loss": 0.25},
        {"step": 20, "loss": 0.125, "accuracy": 0.5, "test_accuracy": 0.75},
    ]


def test_flush_makes_lines_and_events_visible(tmp_path: Path) -> None:
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        log.write(Metrics(10, loss=0.25))
        log.flush()
        assert len(_lines(tmp_path)) == 1
        assert _steps_in_tensorboard(tmp_path) == [10]


def test_the_file_is_there_before_the_first_line(tmp_path: Path) -> None:
    with MetricsLog(str(tmp_path), tf.Graph(), 0):
        assert _lines(tmp_path) == []


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    """The first process got to step 40 but its newest checkpoint is of step 20."""
    _write(tmp_path, 0, 10, 20, 30, 40)
    _write(tmp_path, 20, 30, 40, 50)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30, 40, 50]
    assert _steps_in_tensorboard(tmp_path) == [10, 20, 30, 40, 50]


def test_a_run_that_starts_again_has_each_step_once(tmp_path: Path) -> None:
    """The first process was killed before its first checkpoint, an hour ago."""
    _write(tmp_path, 0, 10, 20)
    (events,) = (tmp_path / "logs").glob("events.*")
    events.rename(events.with_name("events.out.tfevents.0000000000000001.host"))
    _write(tmp_path, 0, 10, 20, 30)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30]
    assert _steps_in_tensorboard(tmp_path) == [10, 20, 30]


def test_variables_stand_beside_the_numbers_and_before_the_first_step(tmp_path: Path) -> None:
    for _ in range(2):  # The first process was killed before its first checkpoint.
        with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
            log.write(Metrics(0, variables={"w": -3.5}))
            log.write(Metrics(10, loss=0.25, variables={"w": 0.5}))
    with MetricsLog(str(tmp_path), tf.Graph(), 10) as log:
        log.write(Metrics(20, loss=0.125, variables={"w": 0.75}))
    assert _lines(tmp_path) == [
        {"step": 0, "w": -3.5},
        {"step": 10, "loss": 0.25, "w": 0.5},
        {"step": 20, "loss": 0.125, "w": 0.75},
    ]
    assert _steps_in_tensorboard(tmp_path, "w") == [0, 10, 20]


_DAMAGED = [
    b'{"step": 20, "lo',
    b'{"step": 20}',
    b"\x00\xff\n",
    b"[]\n",
    b'{"step": -1}\n',
    b'{"step": Infinity}\n',
    b"[" * 100_000 + b"\n",
]


@pytest.mark.parametrize("tail", _DAMAGED, ids=range(len(_DAMAGED)))
def test_what_a_killed_process_cut_short_is_dropped(tmp_path: Path, tail: bytes) -> None:
    _write(tmp_path, 0, 10)
    with open(tmp_path / "logs/metrics.jsonl", "ab") as file:
        file.write(tail)
    _write(tmp_path, 20, 30)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 30]


def test_a_full_disk_is_one_line() -> None:
    """/dev/full refuses every write."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(TrainingError, match="metrics cannot be written") as told:
        _write_to_full_disk()
    assert "\n" not in str(told.value)


def _write_to_full_disk() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/logs")
        os.symlink("/dev/full", f"{folder}/logs/metrics.jsonl")
        with MetricsLog(folder, tf.Graph(), 0) as log:
            for step in range(1, 100_000):
                log.write(Metrics(step, loss=0.5))
            log.flush()
