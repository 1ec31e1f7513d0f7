"""What a save leaves on the disk, what its manifest says, and what is restored of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from checkpoints import folder, layout
from checkpoints.folder import Retention
from checkpoints.lock import FolderLock
from checkpoints.reader import restore_newest
from checkpoints.writer import CheckpointWriter
from errors import CheckpointError, NotFiniteError
from tests.checkpoints.conftest import RECORD, SPECS, restore, save, values_at
from tests.conftest import Log

FOUR, TWO, BEST = Retention(4), Retention(2), Retention(2, keep_best=True)


def test_a_checkpoint_is_whole(tmp_path: Path) -> None:
    assert restore_newest(str(tmp_path), SPECS) is None
    assert restore_newest(str(tmp_path / "absent"), SPECS) is None
    save(tmp_path, {9: None, 10: None}, Retention(1))
    suffixes = (".data-00000-of-00001", ".index", ".manifest", ".meta")
    names = ["checkpoint", *(f"my-model-10{suffix}" for suffix in suffixes)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert (tmp_path / "my-model-10.meta").read_bytes() == b"a meta graph"
    assert json.loads((tmp_path / "my-model-10.manifest").read_bytes())["config"] == {"seed": 3}
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-10")
    found = restore(tmp_path)
    assert (found.step, found.prefix) == (10, str(tmp_path / "my-model-10"))
    assert found.manifest is not None
    assert found.manifest.config == {"seed": 3}


def test_values_may_change_while_they_are_written(tmp_path: Path) -> None:
    """A save has its copies, as the training's own memory changes with the next step."""
    live = values_at(10)
    with CheckpointWriter(str(tmp_path), SPECS, RECORD, FOUR, FolderLock(str(tmp_path))) as writer:
        writer.save(10, live)
        for value in live.values():
            value.fill(3)
    assert restore(tmp_path).step == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, bad: float) -> None:
    """The next save says so, or the end."""
    broken = values_at(20) | {"layer/b": np.array([1, bad], np.float32)}
    with CheckpointWriter(str(tmp_path), SPECS, RECORD, FOUR, FolderLock(str(tmp_path))) as writer:
        writer.save(10, values_at(10))
        writer.save(20, broken)
        with pytest.raises(NotFiniteError, match="layer/b is not finite after step 20"):
            writer.save(30, values_at(30))
    with (
        pytest.raises(NotFiniteError, match="step 40"),
        CheckpointWriter(str(tmp_path), SPECS, RECORD, FOUR, FolderLock(str(tmp_path))) as writer,
    ):
        writer.save(40, broken)
    assert folder.usable_steps(str(tmp_path)) == [10]


def test_of_damaged_ones_the_newest_good_one_is_found(tmp_path: Path, caplog: Log) -> None:
    """Damage of another kind to each of the newest; where none is left, that is an error."""
    save(tmp_path, dict.fromkeys((10, 20, 30, 40, 50)), Retention(5))
    suffixes = {50: ".index", 40: ".meta", 30: ".manifest", 20: ".data-00000-of-00001"}
    for step, suffix in suffixes.items():
        path = tmp_path / f"my-model-{step}{suffix}"
        path.write_bytes(path.read_bytes()[:-3])
        caplog.clear()
        assert restore(tmp_path).step == step - 10
        assert caplog.text.count("stepping over") == (60 - step) / 10
        assert f"{path.name} is damaged" in caplog.text
    (tmp_path / "my-model-10.index").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of the 5 checkpoints .*my-model-50\.index is"):
        restore_newest(str(tmp_path), SPECS)
    for step in (20, 30, 40, 50):  # A save mends each.
        save(tmp_path, {step: None}, Retention(5))
        assert restore(tmp_path).step == step


def test_a_checkpoint_without_manifest_is_accepted(tmp_path: Path, caplog: Log) -> None:
    save(tmp_path, {9: None, 10: None}, FOUR)
    (tmp_path / "my-model-10.manifest").unlink()
    found = restore(tmp_path)
    assert (found.step, found.manifest) == (10, None)
    assert "has no manifest" in caplog.text
    for path in sorted(tmp_path.glob("my-model-10.*")):  # A stranger's, under another number.
        path.rename(str(path).replace("-10.", "-99."))
    assert restore(tmp_path).step == 9
    assert "my-model-99: it is of step 10" in caplog.text


def test_a_damaged_newer_one_takes_no_good_ones_place(tmp_path: Path) -> None:
    """Step 40 is damaged and two are kept: 20 and 30 stay until 40 has been written again."""
    save(tmp_path, {20: None, 30: None, 40: None}, Retention(3))
    (tmp_path / "my-model-40.index").write_bytes(b"damage")
    save(tmp_path, {31: None}, TWO)
    assert folder.committed_steps(str(tmp_path)) == [30, 31, 40]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "my-model-31")
    save(tmp_path, {40: None}, TWO)
    assert folder.committed_steps(str(tmp_path)) == [31, 40]
    assert restore(tmp_path).step == 40
    # Nor does the best: step 90 is damaged, so training goes on from 80, whose best is 70.
    save(tmp_path, {70: 0.5, 75: 0.1, 80: 0.2, 90: 0.9}, BEST)
    assert folder.committed_steps(str(tmp_path)) == [80, 90]
    save(tmp_path, {81: 0.1, 82: 0.1}, BEST)
    assert folder.committed_steps(str(tmp_path)) == [80, 81, 82, 90]


# The manifest: what it says, and what it finds.

EMPTY = layout.Manifest(7, 0.5, {}, {}, {})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the files of step 7 and their manifest."""
    files = {}
    for suffix in layout.CONTENT_SUFFIXES:
        path = tmp_path / f"my-model-7{suffix}"
        path.write_bytes(suffix.encode() * 3)
        files[path.name] = layout.digest_file(str(path))
    content = layout.Manifest(7, 123.5, {"tensorflow": "2.21.0"}, {"seed": 0}, files)
    (tmp_path / "my-model-7.manifest").write_bytes(layout.encode_manifest(content))
    return tmp_path


def test_digest_is_size_and_sha256(tmp_path: Path) -> None:
    content = b"x" * 5_000_000  # more than is read at once
    (tmp_path / "f").write_bytes(content)
    found = layout.digest_file(str(tmp_path / "f"))
    assert found == layout.digest(content) == (5_000_000, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("accuracy", [0.0, 0.8297, 1.0, None])
def test_it_says_what_was_put_in(saved: Path, accuracy: float | None) -> None:
    before = layout.read_manifest(str(saved), 7)
    assert before is not None
    layout.verify_files(str(saved), before)
    content = before._replace(config={"seed": 1}, saved_at=7.25, test_accuracy=accuracy)
    (saved / "my-model-7.manifest").write_bytes(layout.encode_manifest(content))
    assert layout.read_manifest(str(saved), 7) == content
    assert layout.manifest_at(f"{saved}/my-model-7") == content
    assert layout.read_manifest(str(saved), 8) is None
    assert layout.manifest_at(f"{saved}/other-7") is None
    (saved / "my-model-7.manifest").rename(saved / "my-model-8.manifest")
    with pytest.raises(CheckpointError, match="of another checkpoint"):
        layout.read_manifest(str(saved), 8)


def test_its_bytes() -> None:
    record = {"config": {}, "environment": {}, "files": {}, "format": 1, "saved_at": 0.5, "step": 7}
    digest = hashlib.sha256((json.dumps(record, sort_keys=True) + "\n").encode()).hexdigest()
    expected = json.dumps({**record, "sha256": digest}, sort_keys=True) + "\n"
    assert layout.encode_manifest(EMPTY) == expected.encode()


def test_every_flipped_bit_of_it_is_found(saved: Path) -> None:
    path = saved / "my-model-7.manifest"
    content = path.read_bytes()
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="is damaged"):
            layout.read_manifest(str(saved), 7)


FACTS: list[dict[str, Any]] = [  # Of another kind, as whoever wrote its hash may have put there.
    *({"test_accuracy": found} for found in (-0.1, 1.5, float("nan"), "0.9")),
    *({"saved_at": found} for found in (float("inf"), "late")),
    {"files": {"f": layout.FileDigest(float("inf"), "")}},  # type: ignore[arg-type]
    *({"previous": layout.Previous(n, "")} for n in (float("inf"), "x", None)),  # type: ignore[arg-type]
    {"environment": []},
    {"config": "seed 0"},
]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b'{"sha256": 1}', b"\xff\xfe", b"1"),
        *(layout.encode_manifest(EMPTY._replace(**facts)) for facts in FACTS),
    ],
    ids=range(6 + len(FACTS)),
)
def test_other_content_is_damage(saved: Path, content: bytes) -> None:
    (saved / "my-model-7.manifest").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"my-model-7\.manifest is damaged"):
        layout.read_manifest(str(saved), 7)


@pytest.mark.parametrize("suffix", layout.CONTENT_SUFFIXES)
def test_missing_and_damaged_files_are_named(saved: Path, suffix: str) -> None:
    found = layout.read_manifest(str(saved), 7)
    assert found is not None
    path = saved / f"my-model-7{suffix}"
    path.write_bytes(b"other")
    for listed, message in ((found, f"{path.name} is damaged"), (EMPTY, "does not name")):
        with pytest.raises(CheckpointError, match=message):
            layout.verify_files(str(saved), listed)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path.name} is missing"):
        layout.verify_files(str(saved), found)
