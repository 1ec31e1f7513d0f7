"""The parts of `benchmarks.speed`, with tiny numbers; docs/measurements.md has the figures."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import measuring, speed
from benchmarks.measuring import CNN, MLP

TINY = {
    "_NUM_IMAGES": 256,
    "_STEPS_BY_BATCH_SIZE": {10: 3, 128: 2},
    "_BYTES": 1_000_000,
    "_IMAGES_ON_DISK": 300,
    "_STEPS_ON_DISK": 3,
    "_FILES": 160,
}


@pytest.fixture(autouse=True)
def _is_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TINY.items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(measuring, "PAIRS", 1)
    monkeypatch.setattr(measuring, "start", lambda: None)


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("train-10", 8),
        ("predict", 4),
        ("memory", [r"300 images, at most so much memory above the start +-?[\d.,]+ MB \(below"]),
        ("data-128", [r"images\.npy on", "files on disk / in", "files on disk, half held"]),
        ("reading", ["CPU seconds", "wall seconds"]),
    ],
)
def test_a_part_gives_its_lines(part: str, lines: int | Sequence[str], tmp_path: Path) -> None:
    found = [*speed._PARTS[part](tmp_path)]
    expected = [""] * lines if isinstance(lines, int) else lines
    for line, pattern in zip(found, expected, strict=True):
        assert re.search(pattern, line)
        assert part == "memory" or float(line.partition(" ratio ")[2].split()[0]) > 0


def test_what_workers_cost_is_what_more_steps_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of 3 in place of whole runs, whose flags are those of the trainers."""

    def cost(_: Path, command: Sequence[str], **__: bool) -> float:
        script, *flags = command
        trainer = {"train_cnn.py": CNN, "train_mlp.py": MLP}[script]
        config = trainer.config(tmp_path, *flags)
        return float(5 + 0.003 * config.train_steps * config.run.workers)

    monkeypatch.setattr(speed, "_cost", cost)
    lines = [*speed._workers(tmp_path)]
    assert [line.split(":")[0] for line in lines] == ["cnn"] * 4 + ["mlp"] * 4
    ratios = [float(line.partition(" ratio ")[2].split()[0]) for line in lines]
    assert ratios == [1, 2, 2, 1] * 2
    assert "6.00       3.00 ms CPU" in lines[1]
