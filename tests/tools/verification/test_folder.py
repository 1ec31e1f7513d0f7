"""A folder that changes while it is verified gives no false alarm."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpoints.bundle import VariableSpec
from checkpoints.lock import FolderLock
from checkpoints.retention import Retention
from checkpoints.writer import CheckpointWriter, RunRecord
from tests.tools.verification.conftest import SaveAll
from tools import verify_checkpoint
from tools.verify_checkpoint import GraphChecks, Values, read_all
from tools.verifying import FolderVerdict, verify_folder

v1 = tf.compat.v1

SPECS = {
    "w": VariableSpec((1,), "float32"),
    "b": VariableSpec((1,), "float32"),
    "global_step": VariableSpec((), "int64"),
}


@contextmanager
def _beside(work: "threading.Thread") -> Iterator[None]:
    work.start()
    try:
        yield
    finally:
        work.join(600)


def _train(folder: Path, meta_graph: bytes, steps: range) -> None:
    """What the loop of a trainer does with its folder."""
    record = RunRecord(meta_graph, {}, {})
    with (
        FolderLock(str(folder)),
        CheckpointWriter(str(folder), SPECS, record, Retention(max_to_keep=2)) as writer,
    ):
        for step in steps:
            one = np.array([step], np.float32)
            writer.save(step, {"w": one, "b": one, "global_step": np.array(step)})


def _verified_while(work: threading.Thread, path: Path, graphs: GraphChecks) -> list[FolderVerdict]:
    found = []
    with _beside(work):
        while work.is_alive():
            found.append(verify_folder(str(path), graphs))
    return found


def test_a_trainer_that_saves_and_deletes(ours: Path, graphs: GraphChecks) -> None:
    meta_graph = (ours / "my-model-300.meta").read_bytes()
    work = threading.Thread(target=_train, args=(ours, meta_graph, range(301, 341)))
    found = _verified_while(work, ours, graphs)
    assert found
    assert [verdict for verdict in found if not verdict.is_well] == []
    assert verify_folder(str(ours), graphs).is_well
    assert len(verify_folder(str(ours), graphs).checkpoints) == 2


def _save_stock(folder: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
        saver = v1.train.Saver(max_to_keep=2)
        session.run(v1.global_variables_initializer())
        for step in range(30):
            saver.save(session, f"{folder}/m", global_step=step)


def test_a_stock_saver_that_saves_and_deletes(stock: SaveAll, graphs: GraphChecks) -> None:
    folder = stock("first")
    found = _verified_while(threading.Thread(target=_save_stock, args=(folder,)), folder, graphs)
    assert found
    assert [verdict for verdict in found if not verdict.is_well] == []


def test_what_is_deleted_while_it_is_read_is_not_told_of(
    ours: Path, graphs: GraphChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_late(prefix: str) -> Values:
        if prefix.endswith("-270"):
            for file in ours.glob("my-model-270.*"):
                file.unlink()
        return read_all(prefix)

    monkeypatch.setattr(verify_checkpoint, "read_all", read_late)
    names = [verdict.entry.name for verdict in verify_folder(str(ours), graphs).checkpoints]
    assert names == ["my-model-280", "my-model-290", "my-model-300"]


def test_what_is_written_anew_while_it_is_read_is_read_again(
    ours: Path, graphs: GraphChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ours / "my-model-270.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])

    def read_and_mend(prefix: str) -> Values:
        try:
            return read_all(prefix)
        finally:
            if prefix.endswith("-270"):
                data.write_bytes(whole)

    monkeypatch.setattr(verify_checkpoint, "read_all", read_and_mend)
    assert verify_folder(str(ours), graphs).is_well


def test_in_a_folder_that_is_trained_a_save_under_way_is_no_leftover(
    ours: Path, graphs: GraphChecks
) -> None:
    (ours / "my-model-310.manifest.tmp").write_bytes(b"")
    (ours / "my-model-310.data-00000-of-00001").write_bytes(b"half")
    assert not verify_folder(str(ours), graphs).is_well
    with FolderLock(str(ours)):
        found = verify_folder(str(ours), graphs)
    assert found.is_well
    assert found.trained_by is not None
    assert found.trained_by.startswith("process ")
    assert [leftover.step for leftover in found.leftovers] == [310]


def test_damage_is_told_of_in_a_folder_that_is_trained_too(ours: Path, graphs: GraphChecks) -> None:
    (ours / "my-model-280.index").write_bytes(b"")
    with FolderLock(str(ours)):
        assert not verify_folder(str(ours), graphs).is_well
