"""Reading up to a limit."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from checkpoints.file_io import check_fetched, read_bounded, read_head
from errors import CheckpointError


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    return f"{tmp_path}/f"


def test_up_to_the_limit_it_is_read(path: str) -> None:
    assert read_bounded(path, 100) == bytes(range(100))
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_bounded(path, 99)


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert read_bounded(f"{tmp_path}/f", 9) == b""


@pytest.mark.parametrize("link", ["/dev/zero", "/dev/stdin", "."])
def test_what_is_no_file_is_not_opened(tmp_path: Path, link: str) -> None:
    (tmp_path / "f").symlink_to(link)
    with pytest.raises(CheckpointError, match="no regular file"):
        read_bounded(f"{tmp_path}/f", 9)
    assert read_head(f"{tmp_path}/f", 9) == b""


def test_the_limit_holds_where_the_file_grows(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.io.gfile, "stat", lambda _: SimpleNamespace(length=10))
    with pytest.raises(CheckpointError, match="more than the limit"):
        read_bounded(path, 50)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        read_bounded(f"{tmp_path}/f", 9)
    assert read_head(f"{tmp_path}/f", 9) == b""


def test_the_head_is_at_most_the_file(path: str) -> None:
    assert read_head(path, 3) == b"\0\1\2"
    assert read_head(path, 300) == bytes(range(100))


def test_a_pointer_is_told_and_nothing_else(path: str) -> None:
    check_fetched(path)
    check_fetched(path + "nowhere")
    for content in (b"", b"\x80\x04", b"version https"):  # Values may begin in any way.
        Path(path).write_bytes(content)
        check_fetched(path)
    Path(path).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        check_fetched(path)
