"""The benchmark of a big checkpoint, with a small one; the README has the figures of the whole."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import big_checkpoint
from benchmarks.big_checkpoint import Figures, make_checkpoint, measure, report


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


def test_memory_that_is_given_back_counts(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        assert folder == tmp_path
        held = np.ones(50_000_000, np.uint8)
        for _ in range(20):
            held += 1

    assert measure(work, tmp_path, 0.0).peak_mb > 40


def test_the_table_has_ratios() -> None:
    figures = {part: Figures(6.0, 0.3, 250.0, 125.0) for part in big_checkpoint._PARTS}
    lines = report(figures | {"read": Figures(6.0, 0.1, 250.0, 0.0)}, 500)
    assert lines[0] == "checkpoint of 500 MB; the start of a process: 6.00 s, 250 MB"
    assert re.fullmatch(r"tools\.freeze +0\.300 +3\.00 +125 +0\.25", lines[-1])
    assert len(lines) == 2 + len(big_checkpoint._PARTS)
