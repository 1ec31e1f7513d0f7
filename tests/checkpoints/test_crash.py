"""A save that is cut short at any of its boundaries, or refused by the disk at any of them.

Everything a save does to the disk goes through `file_io` and the bundle writer, so that
a process can be made to end, or the disk to refuse, before or after each single call.
"""

import errno
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import file_io
from checkpoints import bundle, folder, layout, writer
from checkpoints.folder import Retention, best_checkpoint
from errors import CheckpointError
from tests.checkpoints.conftest import restore, save
from tests.conftest import Log, Patch

KEEP = 2
RETENTION, KEEPING_BEST = Retention(KEEP), Retention(KEEP, keep_best=True)
_CALLS = ("write_file", "flush", "rename", "remove")
DATA, INDEX = ".data-00000-of-00001", ".index"


class PowerCutError(BaseException):
    """The process is gone: nothing handles this, and no further call reaches the disk."""


class Disk:
    """Counts the calls that reach the disk and does at one of them what a test wants.

    Attributes:
      calls: name and path of each call so far.
    """

    def __init__(self, monkeypatch: Patch) -> None:
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[int], None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None
        self._unflushed: set[str] = set()
        for name in _CALLS:
            monkeypatch.setattr(file_io, name, self._watched(name, getattr(file_io, name)))
        monkeypatch.setattr(writer, "write_bundle", self._watched("bundle", bundle.write_bundle))

    def _watched(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def watched(path: str, *arguments: Any) -> None:
            number = len(self.calls)
            self.calls.append((name, path))
            self.before(number)
            if name == "write_file":
                self._unflushed.add(path)
            call(path, *arguments)
            if name == "bundle":
                self._unflushed |= {path + INDEX, path + DATA}
            elif name == "flush":
                self._unflushed.discard(path)
            self.after(number)

        return watched

    def lose_what_was_not_flushed(self) -> None:
        """What a power cut does: a file's name is there, its content is not."""
        for path in self._unflushed:
            if Path(path).exists():
                Path(path).write_bytes(b"")


@pytest.fixture
def present(tmp_path: Path) -> Path:
    """A folder that holds all that is kept, the steps 10 and 20."""
    path = tmp_path / "present"
    path.mkdir()
    save(path, {10: None, 20: None}, RETENTION)
    return path


def _save_30(path: Path) -> None:
    save(path, {30: None}, RETENTION)


@pytest.fixture
def num_calls(present: Path, tmp_path: Path) -> int:
    """How many calls a save of step 30 makes."""
    path = Path(shutil.copytree(present, tmp_path / "counted"))
    with pytest.MonkeyPatch.context() as patched:
        disk = Disk(patched)
        _save_30(path)
    assert {name for name, _ in disk.calls} == {*_CALLS, "bundle"}
    return len(disk.calls)


def _cut_short(work: Callable[[], None], moment: str, power: str, last: int) -> bool:
    """Does it in a process that ends at the call number `last`; whether it makes as many."""
    with pytest.MonkeyPatch.context() as patched:
        disk = Disk(patched)

        def end(number: int) -> None:
            if number >= last:
                raise PowerCutError

        setattr(disk, moment, end)
        try:
            work()
        except PowerCutError:
            if power == "cut":
                disk.lose_what_was_not_flushed()
            return True
    return False


def _names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def _check_restart(path: Path) -> int:
    """Restarts as training does, then saves on; returns the step that was found."""
    step = restore(path).step
    folder.at_start(str(path), step, RETENTION)
    assert not any(name.endswith(".tmp") or "tempstate" in name for name in _names(path))
    assert tf.train.latest_checkpoint(str(path)) == str(path / f"my-model-{step}")
    save(path, {30: None, 40: None}, RETENTION)
    assert folder.committed_steps(str(path)) == [30, 40]
    assert len(_names(path)) == 4 * KEEP + 1
    return step


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("power", ["kept", "cut"])
def test_an_end_at_any_call_loses_nothing(
    present: Path, tmp_path: Path, num_calls: int, moment: str, power: str
) -> None:
    found = []
    for last in range(num_calls):
        path = Path(shutil.copytree(present, tmp_path / f"{last}"))
        assert _cut_short(partial(_save_30, path), moment, power, last)
        found.append(_check_restart(path))
    assert found == sorted(found)  # From the commit on, it is there.
    assert {*found} == {20, 30}


@pytest.mark.parametrize("state", ["tempstate", "data", "data and index"])
def test_a_process_that_ends_while_the_tensors_are_written(present: Path, state: str) -> None:
    """TensorFlow writes a temporary file, renames it to .data, then writes .index."""
    _save_30(present)
    for suffix in (".manifest", ".meta"):
        (present / f"my-model-30{suffix}").unlink()
    (present / "my-model-30.manifest.tmp").touch()
    if state != "data and index":
        (present / f"my-model-30{INDEX}").unlink()
    if state == "tempstate":
        data = present / f"my-model-30{DATA}"
        data.rename(f"{data}.tempstate123")
    assert _check_restart(present) == 20


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["EIO", "EACCES", "ENOSPC"],
)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_disk_that_refuses_any_call(
    present: Path, tmp_path: Path, num_calls: int, error: Exception, lasting: bool, caplog: Log
) -> None:
    for first in range(num_calls):
        path = Path(shutil.copytree(present, tmp_path / f"{first}"))
        with pytest.MonkeyPatch.context() as patched:
            disk = Disk(patched)

            def refuse(number: int, first: int = first) -> None:
                if number == first or (lasting and number > first):
                    raise error

            disk.before = refuse
            try:
                _save_30(path)
                said = caplog.messages[-1]
                assert "my-model-30 is saved, but " in said
            except CheckpointError as refused:
                said = str(refused)
                assert "my-model-30: " in said
            assert "\n" not in said
        assert _check_restart(path) in (20, 30)


def test_training_goes_on_where_space_returns(present: Path, caplog: Log) -> None:
    """The save of step 30 is refused, that of step 40 is not."""
    with pytest.MonkeyPatch.context() as patched:
        disk = Disk(patched)

        def refuse(number: int) -> None:
            if disk.calls[number] == ("bundle", str(present / "my-model-30")):
                raise OSError(errno.ENOSPC, "No space left on device")

        disk.before = refuse
        save(present, {30: None, 40: None}, RETENTION)
    assert "could not save" in caplog.text
    assert "training goes on" in caplog.text
    assert folder.committed_steps(str(present)) == [20, 40]


def test_everything_is_flushed_before_it_counts(present: Path, monkeypatch: Patch) -> None:
    """The order that a power cut asks for, whatever the file system reorders."""
    disk = Disk(monkeypatch)
    _save_30(present)
    prefix = str(present / "my-model-30")
    calls = disk.calls
    commit = calls.index(("rename", prefix + ".manifest.tmp"))
    for suffix in (DATA, INDEX, ".meta", ".manifest.tmp"):
        assert ("flush", prefix + suffix) in calls[:commit]
    folder_flush = ("flush", str(present))
    assert folder_flush in calls[calls.index(("bundle", prefix)) : commit]
    state = calls.index(("rename", str(present / "checkpoint.tmp")))
    assert folder_flush in calls[commit:state]
    first_removal = next(i for i, (name, _) in enumerate(calls) if name == "remove")
    assert folder_flush in calls[state:first_removal]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("power", ["kept", "cut"])
@pytest.mark.parametrize(
    ("accuracy", "best", "kept"), [(0.9, 30, [25, 30]), (0.2, 10, [10, 25, 30])]
)
def test_an_end_at_any_call_keeps_a_best(
    tmp_path: Path, moment: str, power: str, accuracy: float, best: int, kept: list[int]
) -> None:
    """The best so far, of step 10, goes after a better one is committed, else not at all."""
    present = tmp_path / "present"
    present.mkdir()
    save(present, {10: 0.5, 20: 0.1, 25: 0.1}, KEEPING_BEST)
    states, is_short, last = set(), True, 0
    while is_short:
        path = Path(shutil.copytree(present, tmp_path / f"{last}"))
        save_30 = partial(save, path, {30: accuracy}, KEEPING_BEST)
        is_short = _cut_short(save_30, moment, power, last)
        committed = folder.committed_steps(str(path))
        states.add(tuple(committed))
        _check_best(path, best if 30 in committed else 10)
        folder.at_start(str(path), committed[-1], KEEPING_BEST)
        after = kept if 30 in committed else [10, 20, 25]
        assert folder.committed_steps(str(path)) == after
        assert len(_names(path)) == 4 * len(after) + 1
        assert tf.train.latest_checkpoint(str(path)) == str(path / f"my-model-{after[-1]}")
        last += 1
    assert {(10, 20, 25), (10, 20, 25, 30), tuple(kept)} <= states


def _check_best(path: Path, step: int) -> None:
    """It is this one, and whole."""
    assert best_checkpoint(str(path)) == str(path / f"my-model-{step}")
    found = layout.read_manifest(str(path), step)
    assert found is not None
    layout.verify_files(str(path), found)
