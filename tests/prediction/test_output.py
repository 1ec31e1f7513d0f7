"""What is printed, and output files, read back by NumPy, json and csv."""

import csv
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import DataError, PredictionError
from prediction.output import (
    Classification,
    Report,
    as_json,
    as_text,
    check_output,
    write_outputs,
)
from tests.metagraph.made import refused


def test_as_text() -> None:
    shown = {"w:0": np.array([0.5, 1.5], np.float32), "s:0": np.array([b"a"], object)}
    probabilities = np.array([[0.25, 0, 0.75], [1, 0, 0]], np.float32)
    names, class_names = ["cat/1.png", "10"], ["ant", "bee"]
    result = Classification(names, np.array([2, 0]), probabilities, None, class_names)
    rows = as_text(Report("m.meta", "m", shown, result, rows=True))
    assert rows.splitlines() == ["cat/1.png  2    0.7500", "10         ant  1.0000"]
    labelled = result._replace(labels=np.array([2, 1]))
    tensors = as_text(Report("m.meta", "m", shown, labelled, rows=False))
    expected = ["w:0 float32 [2]", "[0.5 1.5]", "s:0 string [1]", "[b'a']"]
    expected += ["accuracy 0.5000 (1 of 2)", "  bee 0.0000 (0 of 1)", "  2 1.0000 (1 of 1)"]
    assert tensors.splitlines() == expected


def test_the_likeliest_classes_of_a_row() -> None:
    """Its own class comes first, whatever its probability; of equal ones, the lower number."""
    probabilities = np.array([[0.25, 0.5, 0.25], [0, 1, 0]], np.float32)
    names = ["ant", "bee", "woodlouse"]
    result = Classification(["0", "1"], np.array([1, 2]), probabilities, None, names)
    report = Report("m.meta", "m", {}, result, rows=True, top_k=2)
    lines = ["0  bee        0.5000  ant        0.2500", "1  woodlouse  0.0000  bee        1.0000"]
    assert as_text(report).splitlines() == lines
    record, _ = json.loads(as_json(report))["predictions"]
    top = [{"class": "bee", "probability": 0.5}, {"class": "ant", "probability": 0.25}]
    assert record == {"name": "0", "class": "bee", "probability": 0.5, "top": top}
    assert len(as_text(report._replace(top_k=9)).splitlines()[0].split()) == 1 + 2 * 3


@pytest.mark.parametrize("count", [50, 51])
def test_many_rows_are_shortened_where_that_is_asked_for(count: int) -> None:
    classes = np.arange(count) % 3
    labels = np.zeros(count, np.int64)
    result = Classification([*map(str, range(count))], classes, np.eye(3)[classes], labels, [])
    report = Report("m.meta", "m", {}, result, rows=True)
    whole, short = as_text(report).splitlines(), as_text(report, shorten=True).splitlines()
    assert len(whole) == count + 2
    if count == 50:
        assert short == whole
        return
    assert short[:10] == whole[:10]
    assert short[10].startswith("... and 41 more rows (")
    assert short[11:] == ["0 17, 1 17, 2 17", *whole[-2:]]


def test_a_name_stays_within_its_line_and_column() -> None:
    """Class names and files' names are what a stranger's file and folder say."""
    class_names = ["a\naccuracy 1.0000 (9 of 9)", "b\u202e", "c"]
    probabilities = np.eye(3, dtype=np.float32)
    names = ["1\t.png", "2.png", "3.png"]
    result = Classification(names, np.arange(3), probabilities, np.arange(3), class_names)
    lines = as_text(Report("m.meta", "m", {}, result, rows=True)).splitlines()
    assert len(lines) == 3 + 1 + 3
    assert lines[0].startswith(r"1\t.png  a\naccuracy 1.0000 (9 of 9)  1.0000  true: a\naccuracy")
    assert {line.index("  1.0000  true") for line in lines[:3]} == {lines[2].index("  1.0000")}


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


def test_npz_and_json_hold_each_tensor_under_its_name(tmp_path: Path) -> None:
    first = _write(tmp_path / "o.npz", OUTPUTS).read_bytes()
    with np.load(tmp_path / "o.npz") as found:
        assert found.files == list(OUTPUTS)
        assert found["fc2/add:0"].tobytes() == VALUES.tobytes()
        assert found["classes:0"].dtype == np.int64
        assert found["words:0"].tolist() == [b"a", b"bc,d", b""]
    assert _write(tmp_path / "o.npz", OUTPUTS).read_bytes() == first
    (tmp_path / "o.npz").unlink()
    values = json.loads(_write(tmp_path / "o.json", OUTPUTS).read_text())
    assert list(values) == list(OUTPUTS)
    assert np.array(values["fc2/add:0"], np.float32).tobytes() == VALUES.tobytes()
    assert values["words:0"] == ["a", "bc,d", ""]


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


def test_what_a_file_cannot_hold(tmp_path: Path) -> None:
    zero = {"words:0": np.array([b"ab\0", b"c"], object)}
    with refused("words:0 has texts that end in a zero byte", PredictionError):
        write_outputs(f"{tmp_path}/o.npz", zero, [])
    uneven = {"a:0": np.zeros(2), "b:0": np.zeros((3, 1))}
    with refused(r"a:0 \[2\], b:0 \[3, 1\]: .*\.npz or \.json", PredictionError):
        write_outputs(f"{tmp_path}/o.csv", uneven, [])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink("/dev/full", tmp_path / "full.csv")
    before = {*tmp_path.iterdir()}
    for name, message in [
        ("", "is a folder"),
        ("file/below/o.npz", "cannot be written"),
        ("file/o.npz", "cannot be written"),
        ("pipe.csv", "pipe.csv is no regular file"),
        ("full.csv", "full.csv is no regular file"),
    ]:
        with refused(message, PredictionError):
            check_output(f"{tmp_path}/{name}")
    for name in ("file", "new.npz", "a/b/o.csv"):
        check_output(f"{tmp_path}/{name}")
    assert {*tmp_path.iterdir()} == before
    assert (tmp_path / "file").read_text() == "old"
    write_outputs(f"{tmp_path}/a/b/o.csv", {"y:0": np.array([1])}, [])  # Makes the folders.
    assert (tmp_path / "a/b/o.csv").read_text() == "row,y:0\n0,1\n"


@pytest.mark.parametrize("text", ["{}/x.npz", "x={}/x.npz", "a=b=/../x.npz"])
def test_what_is_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"rows")
    (tmp_path / "b=").mkdir()
    given = [text.format(tmp_path)]
    with refused(r"--output=x\.npz is read too \(.*another name", PredictionError):
        check_output("x.npz", given)
    check_output("y.npz", given)
    assert (tmp_path / "x.npz").read_bytes() == b"rows"


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # No file gets longer.
    try:
        with refused(r"o\.csv: .*File too large", DataError):
            write_outputs(str(path), OUTPUTS, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
