"""Images on disk: memory and training speed with a million of them, and opening 20,000 files.

  python -m benchmarks.data_speed

makes 3 GB of random images and a folder of PNG files in a temporary folder, and removes them at the
end; about four minutes. The memory is what the process takes above what it took before TensorFlow
was imported. Training from disk and training from memory are measured in turn, as in
`benchmarks.speed`; the images in memory are fewer, as speed does not depend on how many there are.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

from benchmarks import measuring
from cli.fields import flag
from cli.run import run

_ON_DISK, _IN_MEMORY, _FOLDER = "on_disk.npy", "in_memory.npy", "files"
_IMAGES, _IMAGES_IN_MEMORY = 1_000_000, 20_000
_FILES = 20_000
_STEPS, _MEMORY_STEPS = 200, 2000  # of batch 128, and ten times as many of batch 10
_HELD_MB, _HALF_MB = 512, 31  # enough for each of these, and for half of the files
_BLOCK = 10_000  # images made at once


def main(request: "Request") -> None:
    """Prints all figures, each as soon as it is measured."""
    if request.part is not None:
        measuring.run_part(_PARTS[request.part], request.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder) / _ON_DISK, _IMAGES)
        make_images(Path(folder) / _IN_MEMORY, _IMAGES_IN_MEMORY)
        measuring.write_image_files(Path(folder) / _FOLDER, _FILES)
        heads = ("on disk", "in memory")
        measuring.run_parts("data_speed", _PARTS, heads, f"--folder={folder}")


def make_images(path: Path, count: int) -> None:
    """Writes random images, uint8 [count, 32, 32, 3], and their labels beside them."""
    import numpy as np

    generator = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 32, 32, 3))
    for first in range(0, count, _BLOCK):
        block = images[first : first + _BLOCK]
        block[:] = generator.integers(0, 256, block.shape, np.uint8)
    images.flush()
    np.save(path.with_suffix(".labels.npy"), np.arange(count) % measuring.NUM_CLASSES)


def _memory(folder: Path) -> Iterator[str]:
    """The most memory while training at batch 128 on images that are read as they are needed."""
    with measuring.memory_samples() as samples, redirect_stderr(StringIO()):
        measuring.start()
        flags = measuring.speed_flags(folder / _ON_DISK, 128, _MEMORY_STEPS)
        measuring.CNN.train(folder / "run", *flags, "--data_memory_mb=0")
    own, mapped = (max(column) - column[0] for column in zip(*samples, strict=True))
    yield _line(f"{_IMAGES:,} images, memory above the start", own, "MB (below 600)")
    yield _line("beside it, files mapped: the code of TensorFlow", mapped, "MB")


def _training(batch_size: int, folder: Path) -> Iterator[str]:
    """Training from disk against training from memory."""
    measuring.start(batch_size)
    steps = _STEPS * (10 if batch_size == 10 else 1)

    def speed(data: str, memory_mb: int) -> measuring.Figure:
        memory = f"--data_memory_mb={memory_mb}"
        return partial(measuring.training_speed, folder / data, batch_size, steps, memory)

    sides = (
        (_ON_DISK, speed(_ON_DISK, 0), speed(_IN_MEMORY, _HELD_MB), "at least 0.95"),
        (_FOLDER, speed(_FOLDER, 0), speed(_FOLDER, _HELD_MB), "not asked for"),
        (
            f"{_FOLDER}, half of them held",
            *(speed(_FOLDER, _HALF_MB), speed(_FOLDER, _HELD_MB), "not asked for"),
        ),
    )
    for data, read, kept, bound in sides:
        name = f"training, batch {batch_size}, {data}"
        yield measuring.compare(name, read, kept, "images/s", bound)


def _opening(folder: Path) -> Iterator[str]:
    """Opening the folder of files, the first time with none of them in the page cache."""
    measuring.start()
    from data.image_data import ReadOptions, open_image_data

    path = str(folder / _FOLDER)

    def read(memory_mb: int) -> None:
        options = ReadOptions(memory_mb=memory_mb)
        data = open_image_data(path, ramp_path="", validation_fraction=0.0, seed=0, options=options)
        data.train.digest()

    for memory_mb, how in ((_HELD_MB, "read into memory"), (0, "read as needed")):
        _drop_from_page_cache(folder / _FOLDER)
        for time_of, bound in (("first", ""), ("second", " (at most 2)")):
            name = f"opening {_FILES:,} files, {how}, the {time_of} time"
            yield _line(name, measuring.seconds(partial(read, memory_mb)), f"s{bound}")


def _drop_from_page_cache(folder: Path) -> None:
    """Writes all files of class folders to the disk, and has the system forget their content."""
    os.sync()
    for path in folder.glob("*/*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _line(name: str, value: float, unit: str) -> str:
    return f"{name:<58} {value:>10,.2f} {unit}"


_PARTS: dict[str, measuring.Part] = {
    "memory": _memory,
    "train-128": partial(_training, 128),
    "train-10": partial(_training, 10),
    "opening": _opening,
}


@dataclass(frozen=True)
class Request:
    """What is measured, and on how much."""

    part: str | None = flag("Measures this alone, in --folder.", None, choices=[*_PARTS])
    folder: str = flag("Where the images are; for --part.", "")


if __name__ == "__main__":
    run(main, Request, __doc__)
