"""The manifest: what it says, and what it finds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from checkpoints import manifest, naming
from errors import CheckpointError

EMPTY = manifest.Manifest(7, 0.5, {}, {}, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of step 7 and their manifest."""
    files = {}
    for suffix in naming.CONTENT_SUFFIXES:
        path = tmp_path / f"my-model-7{suffix}"
        path.write_bytes(suffix.encode() * 3)
        files[path.name] = manifest.digest_file(str(path))
    content = manifest.Manifest(7, 123.5, {"tensorflow": "2.21.0"}, {"seed": 0}, files)
    (tmp_path / "my-model-7.manifest").write_bytes(manifest.encode(content))
    return tmp_path


def test_digest_is_size_and_sha256(tmp_path: Path) -> None:
    content = b"x" * 5_000_000  # more than is read at once
    (tmp_path / "f").write_bytes(content)
    found = manifest.digest_file(str(tmp_path / "f"))
    assert found == manifest.digest(content) == (5_000_000, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("accuracy", [0.0, 0.8297, 1.0, None])
def test_it_says_what_was_put_in(folder: Path, accuracy: float | None) -> None:
    before = manifest.read(str(folder), 7)
    assert before is not None
    manifest.verify_files(str(folder), before)
    content = before._replace(config={"seed": 1}, saved_at=7.25, test_accuracy=accuracy)
    (folder / "my-model-7.manifest").write_bytes(manifest.encode(content))
    assert manifest.read(str(folder), 7) == content
    assert manifest.read_of(f"{folder}/my-model-7") == content
    assert manifest.read(str(folder), 8) is None
    assert manifest.read_of(f"{folder}/other-7") is None
    (folder / "my-model-7.manifest").rename(folder / "my-model-8.manifest")
    with pytest.raises(CheckpointError, match="of another checkpoint"):
        manifest.read(str(folder), 8)


def test_its_bytes() -> None:
    record = {"config": {}, "environment": {}, "files": {}, "format": 1, "saved_at": 0.5, "step": 7}
    digest = hashlib.sha256((json.dumps(record, sort_keys=True) + "\n").encode()).hexdigest()
    expected = json.dumps({**record, "sha256": digest}, sort_keys=True) + "\n"
    assert manifest.encode(EMPTY) == expected.encode()


def test_every_flipped_bit_of_it_is_found(folder: Path) -> None:
    path = folder / "my-model-7.manifest"
    content = path.read_bytes()
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="is damaged"):
            manifest.read(str(folder), 7)


FACTS: list[dict[str, Any]] = [  # Of another kind, as whoever wrote its hash may have put there.
    *({"test_accuracy": found} for found in (-0.1, 1.5, float("nan"), "0.9")),
    *({"saved_at": found} for found in (float("inf"), "late")),
    {"environment": []},
    {"config": "seed 0"},
]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b'{"sha256": 1}', b"\xff\xfe", b"1"),
        *(manifest.encode(EMPTY._replace(**facts)) for facts in FACTS),
    ],
    ids=range(6 + len(FACTS)),
)
def test_other_content_is_damage(folder: Path, content: bytes) -> None:
    (folder / "my-model-7.manifest").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"my-model-7\.manifest is damaged"):
        manifest.read(str(folder), 7)


@pytest.mark.parametrize("suffix", naming.CONTENT_SUFFIXES)
def test_missing_and_damaged_files_are_named(folder: Path, suffix: str) -> None:
    found = manifest.read(str(folder), 7)
    assert found is not None
    path = folder / f"my-model-7{suffix}"
    path.write_bytes(b"other")
    for listed, message in ((found, f"{path.name} is damaged"), (EMPTY, "does not name")):
        with pytest.raises(CheckpointError, match=message):
            manifest.verify_files(str(folder), listed)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path.name} is missing"):
        manifest.verify_files(str(folder), found)
