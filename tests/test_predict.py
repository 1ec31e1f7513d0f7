"""predict.py as a user calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image, ImageOps

import predict
from cli.fields import parse
from prediction.request import PredictConfig
from tests.prediction import conftest as checkpoints

classifier = checkpoints.classifier


def _parse(*arguments: str) -> PredictConfig:
    return parse(PredictConfig, ["predict.py", *arguments], predict.__doc__)


def test_flags_that_are_not_given_are_the_defaults_of_the_configuration() -> None:
    assert _parse("m.meta") == _parse("--meta=m.meta") == PredictConfig("m.meta")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ckpt=", "--ckpt=: must not be empty"),
        ("--batch_size=x", "--batch_size=x"),
        ("--output=", "--output="),
        ("--input=b=", "must be a path, or name=path"),
        ("--feed==1", "must be name=file.npy, name=literal or file.npz"),
    ],
)
def test_bad_flags_are_usage_errors(flag: str, message: str) -> None:
    with pytest.raises(flags.Error) as caught:
        _parse("--meta=m.meta", flag)
    assert message in str(caught.value)


def test_lists_and_repeated_flags_are_read() -> None:
    values = _parse(
        "--meta=m.meta",
        "--fetch=w:0,b:0",
        *("--feed=x=[1, 2]", "--feed=f.npz"),
        *("--input=a=b.npy", "--input=c,d.npy"),
    )
    assert values.fetch == ("w:0", "b:0")
    assert values.feed == ("x=[1, 2]", "f.npz")
    assert values.input == ("a=b.npy", "c,d.npy")


def test_a_photo_is_turned_unless_its_exif_is_ignored(
    classifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the arrays that Pillow gives for the file, turned and as it is stored."""
    size, exif = checkpoints.SIZE, Image.Exif()
    exif[0x0112] = 5  # The orientation: mirrored at the diagonal.
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)

    def logits(name: str, *more: str) -> list[list[float]]:
        given = (f"--meta={classifier}", f"--input={tmp_path}/{name}", "--fetch=logits")
        predict.main(_parse(*given, "--format=json", *more))
        found: list[list[float]] = json.loads(capsys.readouterr().out)["outputs"]["logits:0"]
        return found

    with Image.open(tmp_path / "photo.png") as photo:
        np.save(tmp_path / "stored.npy", np.asarray(photo)[np.newaxis])
        np.save(tmp_path / "turned.npy", np.asarray(ImageOps.exif_transpose(photo))[np.newaxis])
    assert logits("photo.png") == logits("turned.npy") != logits("stored.npy")
    assert logits("photo.png", "--ignore_exif") == logits("stored.npy")
