"""predict.py as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image, ImageOps

import predict
from cli.fields import parse
from prediction.request import PredictConfig
from tests.prediction import conftest as checkpoints

line, classifier = checkpoints.line, checkpoints.classifier
SCRIPT = Path(predict.__file__)


def _parse(*arguments: str) -> PredictConfig:
    return parse(PredictConfig, ["predict.py", *arguments], predict.__doc__)


def test_flags_that_are_not_given_are_the_defaults_of_the_configuration() -> None:
    assert _parse("m.meta") == _parse("--meta=m.meta") == PredictConfig("m.meta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "missing: --meta=...; usage: python predict.py META [flags], such as python",
        ),
        (("--meta=",), "--meta=: must not be empty"),
        (("--meta=m.meta", "--ckpt="), "--ckpt=: must not be empty"),
        (("--meta=m.meta", "--metta=x"), "Did you mean: meta"),
        (("--meta=m.meta", "--batch_size=0"), "--batch_size=0"),
        (("--meta=m.meta", "--batch_size=x"), "--batch_size=x"),
        (("--meta=m.meta", "--format=xml"), "--format=xml"),
        (("--meta=m.meta", "--output=o.txt"), "must end in one of .npz, .json, .csv"),
        (("--meta=m.meta", "--output="), "--output="),
        (("--meta=m.meta", "--input="), "must be a path, or name=path"),
        (("--meta=m.meta", "--input=a.npy", "--input=b="), "must be a path, or name=path"),
        (("--meta=m.meta", "--feed=x"), "must be name=file.npy, name=literal or file.npz"),
        (("--meta=m.meta", "--feed==1"), "must be name=file.npy, name=literal or file.npz"),
        (("--meta=m.meta", "--fetch=a,,b"), "must be tensor names"),
    ],
)
def test_bad_flags_are_usage_errors(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(flags.Error) as caught:
        _parse(*arguments)
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


def test_results_and_nothing_else_go_to_stdout(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predict.main(_parse(f"--meta={line}", "--feed=x=[1]", "--feed=y_=[1]", "--format=json"))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["outputs"] == {"y:0": [2.5]}


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


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parent,
        check=False,
        timeout=600,
    )


def test_help_and_bad_flags_are_answered() -> None:
    helped = _run("--help")
    assert helped.returncode == 0
    assert "--fetch" in helped.stdout
    wrong = _run("--metta=m.meta")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def test_a_mistake_is_one_line_and_1(tmp_path: Path) -> None:
    run = _run(f"--meta={tmp_path}/absent.meta")
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == f"predict.py: error: there is no file {tmp_path}/absent.meta\n"


def test_a_prediction_says_what_it_read_and_is_0(line: str) -> None:
    run = _run(f"--meta={line}", "--fetch=w:0,b:0")
    said = f"graph {line}, variables {line.removesuffix('.meta')}\n"
    assert (run.returncode, run.stderr) == (0, said)
    assert run.stdout == "w:0 float32 [1]\n[2.]\nb:0 float32 [1]\n[0.5]\n"
