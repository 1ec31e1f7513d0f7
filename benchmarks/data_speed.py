"""Images on disk: memory and training speed with a million of them, and opening 20,000 files.

  python -m benchmarks.data_speed

makes 3 GB of random images and a folder of PNG files in a temporary folder, and removes them at the
end; about four minutes. The memory is what the process takes above what it took before TensorFlow
was imported. Training from disk and training from memory are measured in turn, as in
`benchmarks.speed`; the images in memory are fewer, as speed does not depend on how many there are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

from absl import logging

from benchmarks.measuring import (
    NUM_CLASSES,
    MemoryMeter,
    compare,
    training_config,
    training_speed,
    write_image_files,
)
from cli.fields import flag
from cli.run import run
from cli.terminal import import_tensorflow

_PROJECT = Path(__file__).resolve().parent.parent
_IMAGE_BYTES = 32 * 32 * 3
_ON_DISK, _IN_MEMORY, _FOLDER = "on_disk.npy", "in_memory.npy", "files"
_IMAGES_IN_MEMORY = 20_000
_HELD_MB = 512  # enough for each of these
_BLOCK = 10_000  # images made at once


def main(request: "Request") -> int:
    """Prints all figures, each as soon as it is measured."""
    if request.part is not None:
        _PARTS[request.part](Path(request.folder), request)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        needed = int(1.1 * request.images * _IMAGE_BYTES) + 10**8 + request.files * 8192
        free = shutil.disk_usage(folder).free
        if free < needed:
            print(f"{folder}: {free:,} bytes are free, {needed:,} needed", file=sys.stderr)
            return 1
        make_images(Path(folder) / _ON_DISK, request.images)
        make_images(Path(folder) / _IN_MEMORY, min(_IMAGES_IN_MEMORY, request.images))
        write_image_files(Path(folder) / _FOLDER, request.files)
        print(f"{'':<58} {'on disk':>10} {'in memory':>10}", flush=True)
        numbers = [f"--{name}={getattr(request, name)}" for name in _NUMBERS]
        for name in _PARTS:
            command = ["-m", "benchmarks.data_speed", f"--part={name}", f"--folder={folder}"]
            subprocess.run([sys.executable, *command, *numbers], cwd=_PROJECT, check=True)
    return 0


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


def _memory(folder: Path, request: "Request") -> None:
    """The most memory while training at batch 128 on images that are read as they are needed."""
    with MemoryMeter() as meter:
        import_tensorflow(None)
        from train_cnn import train

        logging.get_absl_logger().setLevel("ERROR")
        with redirect_stderr(StringIO()):
            data, run_folder = str(folder / _ON_DISK), str(folder / "run")
            train(training_config(data, run_folder, 128, request.memory_steps, data_memory_mb=0))
    own, mapped = (most - first for most, first in zip(meter.peak, meter.start, strict=True))
    print(_line(f"{request.images:,} images, memory above the start", own, "MB (below 600)"))
    print(_line("beside it, files mapped: the code of TensorFlow", mapped, "MB"), flush=True)


def _training(batch_size: int, folder: Path, request: "Request") -> None:
    """Training from disk against training from memory."""
    import_tensorflow(1 if batch_size == 10 else None)  # as train_cnn.py does
    logging.get_absl_logger().setLevel("ERROR")
    steps = request.steps * (10 if batch_size == 10 else 1)

    def speed(data: str, data_memory_mb: int) -> float:
        path = str(folder / data)
        return training_speed(path, folder, batch_size, steps, data_memory_mb=data_memory_mb)

    sides = ((_ON_DISK, _IN_MEMORY, "at least 0.95"), (_FOLDER, _FOLDER, "not asked for"))
    for data, held, bound in sides:
        line = compare(
            f"training, batch {batch_size}, {data}",
            partial(speed, data, 0),
            partial(speed, held, _HELD_MB),
            pairs=request.pairs,
            unit="images/s",
            bound=bound,
        )
        print(line, flush=True)


def _opening(folder: Path, request: "Request") -> None:
    """Opening the folder of files, the first time with none of them in the page cache."""
    import_tensorflow(None)
    from data.image_data import ReadOptions, open_image_data

    def seconds(memory_mb: int) -> float:
        started = time.perf_counter()
        data = open_image_data(
            str(folder / _FOLDER),
            ramp_path="",
            validation_fraction=0.0,
            seed=0,
            options=ReadOptions(memory_mb=memory_mb),
        )
        data.train.digest()
        return time.perf_counter() - started

    for memory_mb, how in ((_HELD_MB, "read into memory"), (0, "read as needed")):
        _drop_from_page_cache(folder / _FOLDER)
        for time_of, bound in (("first", ""), ("second", " (at most 2)")):
            name = f"opening {request.files:,} files, {how}, the {time_of} time"
            print(_line(name, seconds(memory_mb), f"s{bound}"), flush=True)


def _drop_from_page_cache(folder: Path) -> None:
    """Writes all files of class folders to the disk, and has the system forget their content."""
    os.sync()
    for path in folder.glob("*/*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _line(name: str, value: float, unit: str) -> str:
    return f"{name:<58} {value:>10,.2f} {unit}"


_PARTS: dict[str, Callable[[Path, "Request"], None]] = {
    "memory": _memory,
    "train-128": partial(_training, 128),
    "train-10": partial(_training, 10),
    "opening": _opening,
}

_NUMBERS = ("images", "files", "steps", "memory_steps", "pairs")


@dataclass(frozen=True)
class Request:
    """What is measured, and on how much."""

    part: str | None = flag("Measures this alone, in --folder.", None, choices=[*_PARTS])
    folder: str = flag("Where the images are; for --part.", "")
    images: int = flag("Images on disk; 3 GB for a million.", 1_000_000, low=1)
    files: int = flag("PNG files in the folder.", 20_000, low=1)
    steps: int = flag(
        "Steps of batch 128 in each measurement of speed; ten times those of 10.", 200, low=1
    )
    memory_steps: int = flag("Steps of batch 128 while the memory is measured.", 2000, low=1)
    pairs: int = flag("Measurements of each.", 5, low=1)


if __name__ == "__main__":
    run(main, Request, __doc__)
