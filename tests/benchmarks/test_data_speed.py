"""The benchmark of images on disk, with tiny numbers; the README has the figures of the whole."""

import mmap
import re
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import data_speed, measuring
from benchmarks.measuring import memory_now, memory_samples, write_image_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in each .npy, and 160 files."""
    folder = tmp_path_factory.mktemp("data_speed")
    for name in ("on_disk.npy", "in_memory.npy"):
        data_speed.make_images(folder / name, 300)
    write_image_files(folder / "files", 160)
    return folder


def test_images_are_written_as_numpy_would(folder: Path) -> None:
    images = np.load(folder / "on_disk.npy")
    assert (images.shape, images.dtype) == ((300, 32, 32, 3), np.uint8)
    assert abs(images.mean() - 127.5) < 1
    assert np.bincount(np.load(folder / "on_disk.labels.npy")).tolist() == [75] * 4
    assert len([*(folder / "files").glob("class ?/*.png")]) == 160


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("memory", [r"300 images, memory above the start +-?[\d.]+ MB", "mapped: .* MB$"]),
        (
            "train-128",
            [
                r"on_disk\.npy .* ratio .* \(at least 0\.95\)",
                "files .* ratio .*",
                "half of them held .* ratio .*",
            ],
        ),
        ("opening", 2 * [r"opening 160 files, read .* time +[\d.]+ s", r" s \(at most 2\)$"]),
    ],
)
def test_every_part_reports(
    part: str,
    lines: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "import_tensorflow", lambda _: None)  # It is imported.
    small = {"_IMAGES": 300, "_FILES": 160, "_STEPS": 1, "_MEMORY_STEPS": 2}
    for name, number in small.items():
        monkeypatch.setattr(data_speed, name, number)
    monkeypatch.setattr(measuring, "PAIRS", 1)
    data_speed.main(data_speed.Request(part, str(folder)))
    found = capsys.readouterr().out.splitlines()
    for line, pattern in zip(found, lines, strict=True):
        assert re.search(pattern, line)


def test_memory_that_is_given_back_is_in_the_samples() -> None:
    """A mapping of its own: an array may come out of memory that the process has already."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with memory_samples() as samples, mmap.mmap(-1, 100_000_000, flags=private) as held:
        held.write(b"x" * len(held))
        deadline = time.monotonic() + 300
        while samples[-1].own < samples[0].own + 90:
            assert time.monotonic() < deadline, f"{samples[0]} grew to {samples[-1]} only"
            time.sleep(0.01)
    assert memory_now().own < max(samples).own - 50
