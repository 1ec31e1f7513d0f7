"""Few images of a class: what the measurements of fine-tuning train and test on."""

import json
import os
import random
import tarfile
from pathlib import Path

from training.config import RunConfig

CLASSES = ("airplane", "automobile", "bird", "cat")


def unpacked(archive: str, folder: Path) -> Path:
    """The folder with train/ and test/ of a .tar.gz, unpacked into `folder`."""
    with tarfile.open(archive) as file:
        file.extractall(folder / "all", filter="data")
    return next(path.parent for path in folder.glob("all/**/train"))


def run_config(folder: Path, seed: int) -> RunConfig:
    """A run that saves and tests at its end only."""
    return RunConfig(
        ckpt_dir=str(folder),
        seed=seed,
        save_every_steps=10**9,
        max_to_keep=1,
        keep_checkpoint_every_n_hours=0.0,
        log_every_steps=10**9,
        allow_config_change=False,
    )


def few(images: Path, classes: tuple[str, ...], folder: Path, count: int, seed: int) -> Path:
    """A folder with `count` training images of each class, and all test images."""
    few = folder / f"few-{'-'.join(classes)}-{seed}"
    chosen = random.Random(seed)  # noqa: S311 (a draw of images)
    for name in classes:
        (few / "train" / name).mkdir(parents=True)
        (few / "test").mkdir(exist_ok=True)
        for path in chosen.sample(sorted((images / "train" / name).iterdir()), count):
            os.symlink(path, few / "train" / name / path.name)
        os.symlink(images / "test" / name, few / "test" / name)
    return few


def test_accuracy(folder: Path) -> float:
    """The last one of a run's metrics."""
    line = (folder / "logs" / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(line)["test_accuracy"])
