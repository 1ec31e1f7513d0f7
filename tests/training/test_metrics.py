"""What a run writes beside its checkpoints, and what a person sees of it."""

import io
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import train_linear
from cli.fields import parse
from cli.terminal import unfailing_writer
from errors import TrainingError
from tests import runs
from tests.conftest import Capture, Log, Make, Patch
from training.metrics import Metrics, MetricsLog, Profile, Progress

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_LINE = r"step 10/20  loss 0\.5  test accuracy 0\.75  [\d,]+ images/s  0:00:00 left\n"


def _write(path: Path, start: int, *steps: int) -> None:
    """A run from step `start` on, with a line every ten steps."""
    with MetricsLog(str(path), tf.Graph(), start, 10) as log:
        for step in steps:
            log.write(Metrics(step, loss=1 / step, variables={"w": 0.5}))


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "logs/metrics.jsonl").read_text().splitlines()]


def _events(path: Path) -> "EventAccumulator":
    """What TensorBoard shows of a run, by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "logs"), {"histograms": 0, "images": 0})
    events.Reload()
    return events


def _steps_in_tensorboard(path: Path) -> list[int]:
    return [scalar.step for scalar in _events(path).Scalars("loss")]


def test_lines_and_events_have_the_step_and_the_numbers_there_are(tmp_path: Path) -> None:
    """The file is there before the first line; a flush makes both visible."""
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        assert _lines(tmp_path) == []
        log.write(Metrics(10, loss=0.25))
        log.write(Metrics(20, loss=0.125, accuracy=0.5, test_accuracy=0.75))
        log.flush()
        second = {"step": 20, "loss": 0.125, "accuracy": 0.5, "test_accuracy": 0.75}
        assert _lines(tmp_path) == [{"step": 10, "loss": 0.25}, second]
        assert _steps_in_tensorboard(tmp_path) == [10, 20]


def test_ten_seconds_make_them_visible(tmp_path: Path, monkeypatch: Patch) -> None:
    """Without a save, as in a first epoch that takes its time."""
    now = time.monotonic()
    with MetricsLog(str(tmp_path), tf.Graph(), 0) as log:
        for step, seconds in ((1, 9.0), (2, 11.0), (3, 12.0)):
            monkeypatch.setattr(time, "monotonic", lambda to=now + seconds: to)
            log.write(Metrics(step, loss=0.5))
        assert [line["step"] for line in _lines(tmp_path)] == [1, 2]
        assert _steps_in_tensorboard(tmp_path) == [1, 2]


def test_tensorboard_shows_histograms_the_confusion_and_what_the_run_is(tmp_path: Path) -> None:
    values, identity = np.array([-1, 0, 0.5, 3, np.nan], np.float32), {"rate": 0.5, "data": "x"}
    more = {"augment": True, "classes": ["a"]}  # A list is nothing that a column shows.
    with MetricsLog(str(tmp_path), tf.Graph(), 0, 1, {**identity, **more}) as log:
        log.write(Metrics(3, loss=0.5, confusion=np.array([[3, 1], [0, 4]])))
        log.write_histograms(3, {"w": values})
    assert _lines(tmp_path) == [{"step": 3, "loss": 0.5}]
    events = _events(tmp_path)
    (image,) = events.Images("test_confusion")
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert [[int(row[0]), int(row[-1])] for row in (pixels[0], pixels[-1])] == [[63, 191], [255, 0]]
    (histogram,) = events.Histograms("w")
    found = histogram.histogram_value
    assert (found.min, found.max, found.num, found.sum) == (-1, 3, 4, 2.5)
    assert (found.sum_squares, sum(found.bucket)) == (10.25, 4)
    (told,) = events.PluginTagToContent("hparams").values()
    hparams = HParamsPluginData.FromString(told).session_start_info.hparams
    assert (hparams["rate"].number_value, hparams["data"].string_value) == (0.5, "x")
    assert hparams["augment"].bool_value
    assert "classes" not in hparams


def test_histograms_are_written_as_often_as_is_asked(tmp_path: Path) -> None:
    given = ("--train_steps=5", "--histograms_every_steps=2")
    train_linear.train(parse(train_linear.LinearConfig, ["", f"--ckpt_dir={tmp_path}", *given]))
    assert [event.step for event in _events(tmp_path).Histograms("w")] == [2, 4, 5]


@pytest.mark.parametrize("newest", [0, 20])
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_each_step_is_once(tmp_path: Path, monkeypatch: Patch, newest: int, seconds: int) -> None:
    """A process got to step 40; its newest checkpoint is of step 20, or it had none.

    The next one starts an hour later, or on a machine whose clock is an hour behind.
    """
    now = time.time_ns()
    _write(tmp_path, 0, 10, 20, 30, 40)
    monkeypatch.setattr(time, "time_ns", lambda: now + seconds * 10**9)
    _write(tmp_path, newest, *range(newest + 10, 60, 10))
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30, 40, 50]
    assert _steps_in_tensorboard(tmp_path) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("file", "damage", "line"),
    [
        ("metrics.jsonl", None, "metrics.jsonl is missing or empty: of the steps .* to 60"),
        ("metrics.jsonl", (b"}", b""), "ends at step 0: of the steps from there to 60"),
        ("metrics.jsonl", (b": 30", b":\xff"), "metrics.jsonl: 1 lines are damaged and left out"),
        ("events*", None, "has no events of the steps up to 60"),
    ],
)
def test_a_gap_is_said(tmp_path: Path, file: str, damage: Any, line: str, caplog: Log) -> None:
    _write(tmp_path, 0, *range(10, 70, 10))
    (path,) = tmp_path.glob(f"logs/{file}")
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(content.replace(*damage))
    _write(tmp_path, 60, 70)
    assert _lines(tmp_path)[-1]["step"] == 70
    assert re.search(line, caplog.text)


TAILS = (b'{"step": 20, "lo', b'{"step": 20}', b"\x00\xff\n", b"[]\n", b'{"step": -1}\n')


@pytest.mark.parametrize(
    "tail", [*TAILS, b'{"step": Infinity}\n', pytest.param(b"[" * 100_000 + b"\n", id="deep")]
)
def test_what_a_killed_process_cut_short_is_dropped(tmp_path: Path, tail: bytes) -> None:
    _write(tmp_path, 0, 10)
    with open(tmp_path / "logs/metrics.jsonl", "ab") as file:
        file.write(tail)
    _write(tmp_path, 20, 30)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 30]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """/dev/full refuses every write."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="metrics cannot be written") as told:
        _write(tmp_path, 0, *range(1, 100_000))
    assert "\n" not in str(told.value)


def _show(terminal: TextIO | None) -> None:
    task: Any = SimpleNamespace(last_step=20, batch_size=8, examples="images")
    with Progress(task, 0, terminal) as progress:
        for _ in range(10):
            progress.step()
        progress.log(Metrics(10, loss=0.5, test_accuracy=0.75))


def test_lines_go_to_stderr_or_where_it_is_said(capsys: Capture) -> None:
    file = io.StringIO()
    _show(None)
    out, err = capsys.readouterr()
    _show(file)
    assert (out, *capsys.readouterr()) == ("", "", "")
    assert all(re.fullmatch(_LINE, shown) for shown in (err, file.getvalue()))


def test_a_terminal_has_a_bar_below_the_lines(monkeypatch: Patch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    _show(terminal)
    line = re.search(_LINE, terminal.getvalue())
    assert line is not None
    assert "0/20" in terminal.getvalue()[: line.start()]
    assert "10/20 [" in terminal.getvalue()[line.end() :]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_that_is_gone_stops_no_step(is_terminal: bool, monkeypatch: Patch) -> None:
    """As scripts have it: its reader has ended, the disk is full, or the terminal is closed."""
    with open("/dev/full", "wb", buffering=0) as full:
        stream = unfailing_writer(full.fileno(), "utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        _show(stream)
        with pytest.raises(OSError, match="No space left"):
            full.write(b"x")


# The profile.


@pytest.mark.parametrize(
    ("steps", "at", "watched"),
    [
        ((3, 6), range(11), {3, 4, 5}),
        ((0, 2), range(11), {0, 1}),
        ((3, 30), range(5, 11), {5, 6, 7, 8, 9, 10}),
        ((3, 6), range(6, 11), set()),
        (None, range(11), set()),
    ],
)
def test_the_steps_that_are_watched(
    steps: Any, at: range, watched: set[int], tmp_path: Path, monkeypatch: Patch, caplog: Log
) -> None:
    """From the step before the first of them, where a run begins there, to the last."""
    calls: list[str] = []
    monkeypatch.setattr(tf.profiler.experimental, "start", calls.append)
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append("stop"))
    found, profile = set(), Profile(str(tmp_path), steps)
    for step in at:
        profile.after(step)
        found |= {step} if calls and calls[-1] != "stop" else set()
    profile.close()
    assert found == watched
    assert calls == ([str(tmp_path / "logs"), "stop"] if watched else [])
    assert ("none of them was trained" in caplog.text) == (steps is not None and not watched)


def test_a_profile_has_the_operations_and_changes_no_byte(
    tmp_path: Path, linear_config: Make
) -> None:
    plain, watched = (linear_config(tmp_path / name, train_steps=10) for name in "pw")
    train_linear.train(plain)
    train_linear.train(runs.with_run(watched, profile_steps=(4, 6)))
    assert runs.same(plain.run, watched.run)
    (trace,) = (tmp_path / "w/logs/plugins/profile").glob("*/*.xplane.pb")
    assert b"train/update_w/ApplyGradientDescent" in trace.read_bytes()
    assert not (tmp_path / "p/logs/plugins").exists()
