"""What machines do to a run and has never harmed it: it is to stay so."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import train_linear
from checkpoints.lock import FolderLock
from errors import CheckpointError, TrainingError
from train_linear import LinearConfig

Make = Callable[..., LinearConfig]


@contextmanager
def _processes(folder: Path, count: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """Starts processes that all try to lock a folder and stay; their numbers, and who has it."""
    told, tells = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            has_it = False
            with suppress(CheckpointError):
                FolderLock(str(folder)).__enter__()
                has_it = True
            os.write(tells, b"1" if has_it else b"0")
            signal.pause()
        children.append(child)
    try:
        yield children, [os.read(told, 1) for _ in children]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_of_twenty_that_start_at_once_one_has_the_folder(tmp_path: Path) -> None:
    with _processes(tmp_path, 20) as (_, got):
        assert sorted(got) == [b"0"] * 19 + [b"1"]


def test_a_holder_that_is_stopped_still_holds(tmp_path: Path) -> None:
    with _processes(tmp_path, 1) as ((child,), _):
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(CheckpointError, match=f"in use by process {child}"):
            FolderLock(str(tmp_path)).__enter__()


def test_a_copy_of_a_folder_in_use_is_free(linear_config: Make, tmp_path: Path) -> None:
    """Its .lock names a process that does not hold it."""
    config = linear_config(tmp_path / "run", train_steps=20)
    train_linear.train(config)
    with FolderLock(str(tmp_path / "run")):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
    longer = linear_config(tmp_path / "copy", train_steps=30)
    assert train_linear.train(longer).step == 30


def test_a_path_as_long_as_the_system_allows(linear_config: Make, tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 3600:
        folder /= "x" * 200
    os.makedirs(folder)
    assert train_linear.train(linear_config(folder, train_steps=20)).step == 20
    with pytest.raises(TrainingError, match=r"File name too long$"):
        train_linear.train(linear_config(folder / ("y" * 255) / ("z" * 255), train_steps=20))


def test_few_file_descriptors_and_a_strict_umask(linear_config: Make, tmp_path: Path) -> None:
    train_linear.train(linear_config(tmp_path / "first", train_steps=10))  # What stays open, is.
    used = max(map(int, os.listdir("/proc/self/fd")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, limits[1]))
    umask = os.umask(0o077)
    try:
        for last in (20, 50):
            config = linear_config(tmp_path / "run", train_steps=last)
            assert train_linear.train(config).step == last
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "run").glob("my-model-*"))


def test_a_folder_of_fifty_thousand_files(linear_config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for number in range(50_000):
        (folder / f"my-model-{number}.txt").touch()
    assert train_linear.train(linear_config(folder, train_steps=20)).step == 20
    assert sum(name.endswith(".txt") for name in os.listdir(folder)) == 50_000
