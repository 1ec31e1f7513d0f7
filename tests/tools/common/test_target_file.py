"""Whether a command may write its file."""

from pathlib import Path

import pytest

from errors import PredictionError, ToolError
from prediction.output import check_target


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    check_target(str(path), [], overwrite=False)
    path.write_bytes(b"old")
    with pytest.raises(ToolError, match="--overwrite"):
        check_target(str(path), [], overwrite=False)
    check_target(str(path), [], overwrite=True)
    assert path.read_bytes() == b"old"


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"an image to predict")
    with pytest.raises(PredictionError, match="is read too"):
        check_target(str(path), [str(path)], overwrite=True)
