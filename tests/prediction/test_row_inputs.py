"""Several inputs by name, whole predictions compared with NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import PredictionError
from prediction import file_inputs
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.prediction import foreign
from tests.prediction.conftest import write_npz

RNG = np.random.default_rng(3)
A = RNG.standard_normal((1000, 3)).astype(np.float32)
B = RNG.standard_normal(1000).astype(np.float32)
WORDS = [b"w" * (row % 7) for row in range(1000)]
Y = A.sum(axis=1) * B + np.array([len(word) for word in WORDS], np.float32)


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return foreign.save(tmp_path_factory.mktemp("inputs"), foreign.three_inputs)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A file for each input, each of another kind, and one that is short of a row."""
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "short.npy", B[:-1])
    np.save(tmp_path / "odd.npy", np.ones((2, 2, 2), np.float32))
    (tmp_path / "words.txt").write_bytes(b"\n".join(WORDS) + b"\n")
    write_npz(tmp_path / "b.npz", X=B)
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def _y(folder: Path, meta: str, texts: list[str], **options: Any) -> Any:
    predict(PredictConfig(meta, fetch=["y"], input=texts, output=f"{folder}/out.npz", **options))
    with np.load(folder / "out.npz") as found:
        return found["y:0"]


@pytest.mark.parametrize("batch_size", [None, 1, 64, 1000, 5000])
@pytest.mark.parametrize("order", [("a", "b", "words"), ("words", "b", "a")])
def test_rows_of_several_files_go_together(
    meta: str, paths: dict[str, str], tmp_path: Path, order: tuple[str, ...], batch_size: int | None
) -> None:
    texts = [f"{name}={paths[name]}" for name in order]
    found = _y(tmp_path, meta, texts, batch_size=batch_size)
    np.testing.assert_allclose(found, Y, rtol=1e-5, atol=1e-5)


def test_each_is_read_a_batch_at_a_time(
    meta: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_inputs, "STREAM_BYTES", 1)
    monkeypatch.setattr(file_inputs, "read_npy", None)
    texts = [f"{name}={paths[name]}" for name in ("a", "b", "words")]
    np.testing.assert_allclose(_y(tmp_path, meta, texts), Y, rtol=1e-5, atol=1e-5)


def test_one_without_a_name_is_for_what_is_left(
    meta: str, paths: dict[str, str], tmp_path: Path
) -> None:
    np.save(tmp_path / "b.npy", B)
    texts = [paths["a"], f"words:0={paths['words']}"]
    found = _y(tmp_path, meta, texts, feed=[f"b={tmp_path}/b.npy"])
    np.testing.assert_allclose(found, Y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["a=1.npy", "a=b=c.npy"])
def test_a_path_that_has_an_equals_sign(
    meta: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    others = [f"b={paths['b']}", f"words={paths['words']}"]
    np.save(name, A)
    for text in (name, f"a={name}"):
        found = _y(tmp_path, meta, [text, *others])
        np.testing.assert_allclose(found, Y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["a={a}", "b={short}", "words={words}"],
            r"as many rows: .*a\.npy \(for a:0\) has 1000, .*short\.npy \(for b:0\) has 999",
        ),
        (["a={a}", "a:0={a}"], r"a:0 is fed twice: --input .*a\.npy, --input a:0="),
        (["{a}", "{b}"], "which is for which tensor"),
        (
            ["{odd}"],
            "could be for any of a:0 .*, b:0 .*, words:0 .*: give each as --input name=file",
        ),
        (["{a}"], r"y:0 needs b:0 float32 \[\?\], words:0 string"),
        (["aa={a}"], r"--input aa=.*: there is no such file, and .* nearest are a:0"),
        (["a={a}", "b={b}"], r"y:0 needs words:0 string \[\?\].*--input name=file"),
    ],
)
def test_what_does_not_go_together(
    meta: str, paths: dict[str, str], tmp_path: Path, texts: list[str], message: str
) -> None:
    with pytest.raises(PredictionError, match=message) as caught:
        _y(tmp_path, meta, [text.format(**paths) for text in texts])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.npz").exists()


def test_a_tensor_of_both_flags(meta: str, paths: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"a:0 is fed twice: --feed a=1, --input a=.*a\.npy"):
        _y(tmp_path, meta, [f"a={paths['a']}"], feed=["a=1"])


def test_labels_that_differ(classifier: str, images: Any, tmp_path: Path) -> None:
    one = write_npz(tmp_path / "one.npz", X=images, Y=np.zeros(7, int))
    two = write_npz(tmp_path / "two.npz", X=np.zeros(7, int), Y=np.ones(7, int))
    config = PredictConfig(classifier, fetch=["acc"], input=[f"x={one}", f"y_={two}"])
    with pytest.raises(PredictionError, match=r"one\.npz and .*two\.npz have different labels"):
        predict(config)


def test_an_input_is_not_written_over(meta: str, paths: dict[str, str]) -> None:
    before = Path(paths["b"]).read_bytes()
    texts = [f"{name}={paths[name]}" for name in ("a", "b", "words")]
    with pytest.raises(PredictionError, match=r"--output=.*b\.npz is read too \(b=.*b\.npz\)"):
        predict(PredictConfig(meta, fetch=["y"], input=texts, output=paths["b"]))
    assert Path(paths["b"]).read_bytes() == before
