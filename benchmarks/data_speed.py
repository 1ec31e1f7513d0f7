"""Images on disk: memory and training speed with a million of them, and opening 20,000 files.

  python -m benchmarks.data_speed

makes 3 GB of random images and a folder of PNG files in a temporary folder, and removes them at the
end; about four minutes. The memory is what the process takes above what it took before TensorFlow
was imported. Training from disk and training from memory are measured in turn, as in
`benchmarks.speed`; the images in memory are fewer, as speed does not depend on how many there are.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

from benchmarks.measuring import (
    NUM_CLASSES,
    compare,
    memory_samples,
    run_part,
    run_parts,
    seconds,
    start,
    training_config,
    training_speed,
    write_image_files,
)
from cli.fields import flag
from cli.run import run

_IMAGE_BYTES = 32 * 32 * 3
_ON_DISK, _IN_MEMORY, _FOLDER = "on_disk.npy", "in_memory.npy", "files"
_IMAGES, _IMAGES_IN_MEMORY = 1_000_000, 20_000
_FILES = 20_000
_STEPS, _MEMORY_STEPS = 200, 2000  # of batch 128, and ten times as many of batch 10
_HELD_MB, _HALF_MB = 512, 31  # enough for each of these, and for half of the files
_BLOCK = 10_000  # images made at once


def main(request: "Request") -> None:
    """Prints all figures, each as soon as it is measured."""
    if request.part is not None:
        run_part(_PARTS[request.part], Path(request.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder) / _ON_DISK, _IMAGES)
        make_images(Path(folder) / _IN_MEMORY, _IMAGES_IN_MEMORY)
        write_image_files(Path(folder) / _FOLDER, _FILES)
        run_parts("data_speed", _PARTS, "on disk", "in memory", f"--folder={folder}")


def make_images(path: Path, count: int) -> None:
    """Writes random images, uint8 [count, 32, 32, 3], and their labels beside them."""
    import numpy as np

    generator = np.random.default_rng(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32, 3)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(
            generator.bytes(min(_BLOCK, count - first) * _IMAGE_BYTES)
            for first in range(0, count, _BLOCK)
        )
    np.save(path.with_suffix(".labels.npy"), np.arange(count) % NUM_CLASSES)


def _memory(folder: Path) -> Iterator[str]:
    """The most memory while training at batch 128 on images that are read as they are needed."""
    with memory_samples() as samples:
        start()
        from train_cnn import train

        with redirect_stderr(StringIO()):
            data, run_folder = str(folder / _ON_DISK), str(folder / "run")
            train(training_config(data, run_folder, 128, _MEMORY_STEPS, "--data_memory_mb=0"))
    own, mapped = (max(column) - column[0] for column in zip(*samples, strict=True))
    yield _line(f"{_IMAGES:,} images, memory above the start", own, "MB (below 600)")
    yield _line("beside it, files mapped: the code of TensorFlow", mapped, "MB")


def _training(batch_size: int, folder: Path) -> Iterator[str]:
    """Training from disk against training from memory."""
    start(batch_size)
    steps = _STEPS * (10 if batch_size == 10 else 1)

    def speed(data: str, memory_mb: int) -> float:
        more = f"--data_memory_mb={memory_mb}"
        return training_speed(str(folder / data), folder, batch_size, steps, more)

    sides = (
        (_ON_DISK, 0, _IN_MEMORY, "at least 0.95"),
        (_FOLDER, 0, _FOLDER, "not asked for"),
        (_FOLDER, _HALF_MB, _FOLDER, "not asked for"),
    )
    for data, memory_mb, held, bound in sides:
        half = ", half of them held" if memory_mb else ""
        name = f"training, batch {batch_size}, {data}{half}"
        read, kept = partial(speed, data, memory_mb), partial(speed, held, _HELD_MB)
        yield compare(name, read, kept, "images/s", bound)


def _opening(folder: Path) -> Iterator[str]:
    """Opening the folder of files, the first time with none of them in the page cache."""
    start()
    from data.image_data import ReadOptions, open_image_data

    def read(memory_mb: int) -> None:
        data = open_image_data(
            str(folder / _FOLDER),
            ramp_path="",
            validation_fraction=0.0,
            seed=0,
            options=ReadOptions(memory_mb=memory_mb),
        )
        data.train.digest()

    for memory_mb, how in ((_HELD_MB, "read into memory"), (0, "read as needed")):
        _drop_from_page_cache(folder / _FOLDER)
        for time_of, bound in (("first", ""), ("second", " (at most 2)")):
            name = f"opening {_FILES:,} files, {how}, the {time_of} time"
            yield _line(name, seconds(partial(read, memory_mb)), f"s{bound}")


def _drop_from_page_cache(folder: Path) -> None:
    """Writes all files of class folders to the disk, and has the system forget their content."""
    os.sync()
    for path in folder.glob("*/*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _line(name: str, value: float, unit: str) -> str:
    return f"{name:<58} {value:>10,.2f} {unit}"


_PARTS: dict[str, Callable[[Path], Iterator[str]]] = {
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
