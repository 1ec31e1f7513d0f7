"""Output files, read back by NumPy, json and csv."""

import csv
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import DataError, PredictionError
from prediction.output import check_output, write_outputs

VALUES = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
OUTPUTS: dict[str, Any] = {
    "fc2/add:0": VALUES,
    "classes:0": np.array([1, 0, 2]),
    "words:0": np.array([b"a", b"bc,d", b""], object),
}


def _write(path: Path, outputs: dict[str, Any], names: list[str] | None = None) -> Path:
    write_outputs(str(path), outputs, names or [])
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # Nothing else is left.
    return path


def test_npz_holds_each_tensor_under_its_name(tmp_path: Path) -> None:
    with np.load(_write(tmp_path / "o.npz", OUTPUTS)) as found:
        assert found.files == list(OUTPUTS)
        assert found["fc2/add:0"].tobytes() == VALUES.tobytes()
        assert found["classes:0"].dtype == np.int64
        assert found["words:0"].tolist() == [b"a", b"bc,d", b""]


def test_texts_that_an_npz_would_shorten_are_refused(tmp_path: Path) -> None:
    outputs = {"words:0": np.array([b"ab\0", b"c"], object)}
    with pytest.raises(PredictionError, match=r"words:0 has texts that end in a zero byte"):
        write_outputs(str(tmp_path / "o.npz"), outputs, [])
    assert not list(tmp_path.iterdir())


def test_equal_outputs_make_equal_files(tmp_path: Path) -> None:
    first = _write(tmp_path / "o.npz", OUTPUTS).read_bytes()
    assert _write(tmp_path / "o.npz", OUTPUTS).read_bytes() == first


def test_json_holds_each_tensor_under_its_name(tmp_path: Path) -> None:
    found = json.loads(_write(tmp_path / "o.json", OUTPUTS).read_text())
    assert list(found) == list(OUTPUTS)
    assert np.array(found["fc2/add:0"], np.float32).tobytes() == VALUES.tobytes()
    assert found["words:0"] == ["a", "bc,d", ""]


def test_csv_has_a_line_a_row_and_a_column_a_value(tmp_path: Path) -> None:
    path = _write(tmp_path / "o.CSV", OUTPUTS, ["x.png", "y.png", "z.png"])
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "fc2/add:0[0]", "fc2/add:0[1]", "classes:0", "words:0"]
    assert [row[0] for row in rows] == ["x.png", "y.png", "z.png"]
    found = np.array([row[1:3] for row in rows]).astype(np.float32)
    assert found.tobytes() == VALUES.tobytes()
    assert [row[4] for row in rows] == ["a", "bc,d", ""]


def test_csv_of_scalars_and_of_more_dimensions(tmp_path: Path) -> None:
    scalars = {"loss:0": np.array(0.5), "acc:0": np.array(1)}
    assert _write(tmp_path / "o.csv", scalars).read_text() == "row,loss:0,acc:0\n0,0.5,1\n"
    cube = {"t:0": np.arange(4).reshape(2, 1, 2)}
    text = _write(tmp_path / "o.csv", cube).read_text()
    assert text == 'row,"t:0[0,0]","t:0[0,1]"\n0,0,1\n1,2,3\n'


def test_tensors_of_different_lengths_make_no_csv(tmp_path: Path) -> None:
    outputs = {"a:0": np.zeros(2), "b:0": np.zeros((3, 1))}
    with pytest.raises(PredictionError, match=r"a:0 \[2\], b:0 \[3, 1\]: .*\.npz or \.json"):
        write_outputs(f"{tmp_path}/o.csv", outputs, [])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "below" / "o.npz", "cannot be written"),
        (tmp_path / "file" / "o.npz", "cannot be written"),
    ]:
        with pytest.raises(PredictionError, match=message):
            check_output(str(path))


def test_the_check_leaves_an_older_file_alone(tmp_path: Path) -> None:
    (tmp_path / "o.npz").write_bytes(b"old")
    check_output(f"{tmp_path}/o.npz")
    check_output(f"{tmp_path}/new.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["o.npz"]
    assert (tmp_path / "o.npz").read_bytes() == b"old"


@pytest.mark.parametrize("text", ["{}/x.npz", "x={}/x.npz", "{}/./x.npz", "a=b=/../x.npz"])
def test_what_is_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"rows")
    (tmp_path / "b=").mkdir()
    given = [text.format(tmp_path)]
    with pytest.raises(PredictionError, match=r"--output=x\.npz is read too \(.*another name"):
        check_output("x.npz", given)
    check_output("y.npz", given)
    assert (tmp_path / "x.npz").read_bytes() == b"rows"


def test_folders_that_are_missing_are_made_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "o.csv"
    check_output(str(path))
    assert not list(tmp_path.iterdir())
    write_outputs(str(path), {"y:0": np.array([1])}, [])
    assert path.read_text() == "row,y:0\n0,1\n"


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink("/dev/full", tmp_path / "full.csv")
    for name in ("pipe.csv", "full.csv"):
        with pytest.raises(PredictionError, match=rf"{name} is no regular file"):
            check_output(f"{tmp_path}/{name}")
    assert {path.name for path in tmp_path.iterdir()} == {"pipe.csv", "full.csv"}


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    path.write_bytes(b"old")
    with _disk_of(10), pytest.raises(DataError, match=rf"o\{suffix}: .*File too large"):
        write_outputs(str(path), OUTPUTS, [])
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@contextmanager
def _disk_of(num_bytes: int) -> Iterator[None]:
    """No file of this process gets longer than that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
