"""The benchmark of a big checkpoint, with a small one; the README has the figures of the whole."""

import re
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import big_checkpoint
from benchmarks.big_checkpoint import Figures, make_checkpoint, measure, report
from benchmarks.measuring import Memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 2 MB."""
    folder = tmp_path_factory.mktemp("big")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(big_checkpoint, "import_tensorflow", lambda: None)  # It is imported.
        make_checkpoint(folder / "big", 2)
    return folder


def test_the_checkpoint_is_of_the_size_that_is_asked_for(folder: Path) -> None:
    size = (folder / "big.data-00000-of-00001").stat().st_size
    assert 1.9e6 < size < 2.1e6
    stored = tf.train.load_checkpoint(str(folder / "big"))
    # Uniform, of a width of 204 up to 204**-0.5 on both sides.
    assert np.std(stored.get_tensor("layer3/w")) == pytest.approx((3 * 204) ** -0.5, rel=0.02)


@pytest.mark.parametrize("part", big_checkpoint._PARTS)
def test_every_part_works_and_leaves_nothing(part: str, folder: Path) -> None:
    before = sorted(folder.iterdir())
    figures = measure(big_checkpoint._PARTS[part], folder, start=1.5)
    assert figures.start == 1.5
    assert figures.seconds > 0
    assert figures.start_mb > 0
    assert figures.peak_mb >= 0
    assert sorted(folder.iterdir()) == before


def test_the_memory_is_the_peak_above_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the meter sees the peak is shown in test_data_speed.py."""
    meter = MagicMock()
    meter.return_value.__enter__.return_value.peak = Memory(own=142.0, mapped=900.0)
    monkeypatch.setattr(big_checkpoint, "MemoryMeter", meter)
    monkeypatch.setattr(big_checkpoint, "memory_now", lambda: Memory(own=100.0, mapped=500.0))
    worked: list[Path] = []
    figures = measure(worked.append, tmp_path, 0.0)
    assert (figures.start_mb, figures.peak_mb) == (100.0, 42.0)
    assert worked == [tmp_path]


def test_the_table_has_ratios() -> None:
    figures = {part: Figures(6.0, 0.3, 250.0, 125.0) for part in big_checkpoint._PARTS}
    lines = report(figures | {"read": Figures(6.0, 0.1, 250.0, 0.0)}, 500)
    assert lines[0] == "checkpoint of 500 MB; the start of a process: 6.00 s, 250 MB"
    assert re.fullmatch(r"tools\.freeze +0\.300 +3\.00 +125 +0\.25", lines[-1])
    assert len(lines) == 2 + len(big_checkpoint._PARTS)
