"""The log of a run, read back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from errors import ToolError
from tools.plot_runs import read_run
from training.metrics import Metrics, MetricsLog


def _write(folder: Path, content: bytes) -> str:
    (folder / "logs").mkdir()
    (folder / "logs/metrics.jsonl").write_bytes(content)
    return str(folder)


def test_it_reads_what_the_trainer_writes(tmp_path: Path) -> None:
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        log.write(Metrics(0, variables={"w": 2.0}))
        log.write(Metrics(10, loss=0.5, accuracy=0.25))
        log.write(Metrics(20, loss=0.25, accuracy=0.75, test_accuracy=0.5))
    run = read_run(str(tmp_path))
    assert {name: (s.steps.tolist(), s.values.tolist()) for name, s in run.series.items()} == {
        "w": ([0], [2.0]),
        "loss": ([10, 20], [0.5, 0.25]),
        "accuracy": ([10, 20], [0.25, 0.75]),
        "test_accuracy": ([20], [0.5]),
    }
    assert run.last_step == 20


def test_damaged_lines_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    good = b'{"step": 10, "loss": 1}\n'
    damaged = [b"\xff\x00\n", b"[1]\n", b'{"step": -4}\n', b'{"step": 1e999, "loss": 1}\n']
    tail = b'{"step": 20, "loss": 2}\n{"step": 30, "lo'
    run = read_run(_write(tmp_path, good + b"".join(damaged) + tail))
    assert run.series["loss"].steps.tolist() == [10, 20]
    assert len(said) == 1
    assert said[0].endswith("damaged: 5")


def test_steps_rise_and_the_later_of_two_lines_counts(tmp_path: Path) -> None:
    lines = [(20, 2.0), (10, 1.0), (20, 3.0)]
    content = b"".join(json.dumps({"step": s, "loss": v}).encode() + b"\n" for s, v in lines)
    found = read_run(_write(tmp_path, content)).series["loss"]
    assert (found.steps.tolist(), found.values.tolist()) == ([10, 20], [1.0, 3.0])


def test_what_is_no_finite_number_is_a_gap_or_nothing(tmp_path: Path) -> None:
    values = ["NaN", "Infinity", "1" + "0" * 400, "-4e38", '"text"', "true", "null", "[1]"]
    content = "".join(f'{{"step": {i}, "loss": {v}}}\n' for i, v in enumerate(values)).encode()
    found = read_run(_write(tmp_path, content)).series["loss"]
    assert found.steps.tolist() == [0, 1, 2, 3]
    assert all(map(math.isnan, found.values))
    assert found.values.dtype == np.float64


@pytest.mark.parametrize("content", [b"", b'{"step": 10}\n', b'{"step": 10, "loss": 1}'])
def test_a_log_without_a_number_is_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ToolError, match="holds no number"):
        read_run(_write(tmp_path, content))


def test_a_folder_without_a_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"logs/metrics\.jsonl; expected the folder of a run"):
        read_run(str(tmp_path))
