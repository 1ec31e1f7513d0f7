"""What is said of a file that --input does not take."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from errors import DataError, PredictionError
from metagraph.meta import TensorInfo
from prediction.file_inputs import Target
from prediction.row_inputs import open_input
from tests.prediction.conftest import info

NUMBERS = Target(info(tf.float32, None, 3), None, (), None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bmp", b"BM", r"a \.bmp file is not taken: convert it to \.png"),
        ("a.TIF", b"II*", r"a \.tif file is not taken: convert it to \.png"),
        ("a.mat", b"MATLAB 5.0", r"save one array of it as \.npy"),
        ("a.pkl", b"\x80\x04\x95", "pickles are code, and never opened"),
        ("a.parquet", b"PAR1", r"write its numbers as \.csv"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", r"save one array of it with np\.save"),
        ("a.csv.gz", b"\x1f\x8b", "unpack it first"),
        ("a.cvs", b"1,2,3\n", r"should its name end in \.csv\?"),
        ("a.npyy", b"", "it is empty"),
        ("a.stuff", b"\x1f\x8b\x08", "it is compressed with gzip"),
        ("a", b"1,2,3\n", "a file without a suffix is not taken: its kind is told by its suffix"),
    ],
)
def test_what_to_do_with_it_is_said(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictionError, match=message) as caught:
        open_input(f"{tmp_path}/{name}", NUMBERS)
    assert "--input takes .npy, .npz, .csv, PNG" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(PredictionError, match=r"numbers go into a \.csv, \.npy or \.npz"):
        open_input(f"{tmp_path}/a.txt", NUMBERS)


def test_what_is_not_there_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.pkl: .*No such file"):
        open_input(f"{tmp_path}/absent.pkl", NUMBERS)


def test_an_image_under_another_name_is_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.dat", format="png")
    target = Target(info(tf.uint8, None, 4, 4, 3), None, (), None)
    found = open_input(f"{tmp_path}/a.dat", target).rows.batch(0, 1)
    np.testing.assert_array_equal(found, pixels[np.newaxis])


def test_for_strings_any_file_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a\x00\xff")
    target = Target(TensorInfo("t:0", tf.string, (None,)), None, (), None)
    assert open_input(f"{tmp_path}/a.gif", target).rows.batch(0, 1).tolist() == [b"GIF89a\x00\xff"]
