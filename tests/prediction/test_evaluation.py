"""Whole predictions, compared with plain TensorFlow on the same checkpoint, and their runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from errors import CheckpointError, DataError, PredictionError, UserError
from metagraph.description import TensorInfo
from prediction import row_runs
from prediction.evaluation import classify, predict
from prediction.file_inputs import array_rows
from prediction.request import PredictConfig
from prediction.row_runs import DEFAULT_BATCH_SIZE, Batching, Kind, choose_batching
from tests.metagraph.made import refused, saved
from tests.prediction import stock
from tests.prediction.conftest import CLASS_NAMES, SCALE, SIZE, document, write_npz

v1 = tf.compat.v1

LABELS = np.array([0, 1, 2, 2, 1, 0, 0])


@pytest.fixture
def labelled(tmp_path: Path, images: Any) -> str:
    return write_npz(tmp_path / "images.npz", X=images, Y=LABELS)


def test_the_report_is_right(
    classifier: str, line: str, labelled: str, images: Any, tmp_path: Path
) -> None:
    """In predict.py, and for the pictures of it: the numbers are those of a stock client."""
    names = ["logits:0", "probabilities:0", "classes:0"]
    expected = stock.run(classifier, names, {"x:0": images * SCALE})
    classes = expected[2]
    shown = document(classifier, input=[labelled], output=f"{tmp_path}/out.npz")
    with np.load(tmp_path / "out.npz") as written:
        assert list(written) == names
        assert [value.tobytes() for value in written.values()] == [e.tobytes() for e in expected]
    assert [row["class"] for row in shown["predictions"]] == [CLASS_NAMES[i] for i in classes]
    assert [row["label"] for row in shown["predictions"]] == [CLASS_NAMES[i] for i in LABELS]
    assert shown["accuracy"] == np.mean(classes == LABELS)
    for label, name in enumerate(CLASS_NAMES):
        of_class = classes[label == LABELS] == label
        assert shown["accuracy_per_class"][name] == np.mean(of_class)
    asked = document(classifier, fetch=["logits"], input=[labelled])
    assert list(asked["outputs"]) == ["logits:0"]
    assert "predictions" not in asked
    assert asked["accuracy"] == shown["accuracy"]
    found = classify(PredictConfig(classifier, input=[labelled], fetch=["logits"]))
    np.testing.assert_array_equal(found.result.classes, classes)
    np.testing.assert_array_equal(found.result.labels, LABELS)
    assert (found.meta, found.checkpoint) == (classifier, classifier.removesuffix(".meta"))
    np.testing.assert_array_equal(found.inputs.rows["x:0"].take(np.arange(7)), images * SCALE)
    with refused("does not say that it is a classifier", PredictionError):
        classify(PredictConfig(line))


@pytest.mark.parametrize("place", ["", "{}"], ids=["folder", "classes"])
def test_files_that_are_no_images_are_named_and_left_out(
    classifier: str, images: Any, tmp_path: Path, said: list[str], place: str
) -> None:
    """Text, what is cut short, an empty file; with them go their labels, and rows of --feed."""
    for row, pixels in enumerate(images):
        path = tmp_path / place.format(CLASS_NAMES[row % 3]) / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    whole = document(classifier, input=[str(tmp_path)])
    last = tmp_path / place.format("cat")
    (last / "README.md").write_text("no image")
    (last / "5cut.png").write_bytes(next(last.glob("*.png")).read_bytes()[:-30])
    (last / "zero.gif").touch()
    said.clear()
    assert document(classifier, input=[str(tmp_path)]) == whole
    (line,) = [text for text in said if text.startswith("left out: ")]
    for name in ("README.md: is no PNG", "5cut.png: is damaged or cut short", "zero.gif: is no"):
        assert name in line
    names = sorted((path.parent.name, path.name) for path in tmp_path.rglob("*.*"))
    asked = {"feed": [f"y_={[*range(10)]}"], "fetch": ["acc", "y_"]}
    rows = document(classifier, input=[str(tmp_path)], **asked)["outputs"]["y_:0"]
    assert rows == [row for row, (_, name) in enumerate(names) if name[1:] == ".png"]
    with refused(r"README|5cut|zero", DataError):
        document(classifier, input=[str(tmp_path)], on_bad_image="stop")
    with refused("none of the 2 files is an image: .*README.md: is no PNG", DataError):
        document(classifier, input=[f"{last}/README.md", f"{last}/*.gif"])
    with refused(r"/zero\.gif: is no PNG, JPEG, BMP, WebP or GIF image$", DataError):
        document(classifier, input=[f"{last}/zero.*"])


def test_a_photo_is_turned_unless_its_exif_is_ignored(classifier: str, tmp_path: Path) -> None:
    """As the arrays that Pillow gives for the file, turned and as it is stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 5  # The orientation: mirrored at the diagonal.
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        np.save(tmp_path / "stored.npy", np.asarray(photo)[np.newaxis])
        np.save(tmp_path / "turned.npy", np.asarray(ImageOps.exif_transpose(photo))[np.newaxis])

    def logits(name: str, **more: Any) -> Any:
        asked = {"fetch": ["logits"], "input": [f"{tmp_path}/{name}"], **more}
        return document(classifier, **asked)["outputs"]["logits:0"]

    assert logits("photo.png") == logits("turned.npy") != logits("stored.npy")
    assert logits("photo.png", ignore_exif=True) == logits("stored.npy")


@pytest.mark.parametrize(
    "options",
    [
        *({"meta": path} for path in ("s3://b/m", "s3://b/m.onnx")),
        *({"input": [f"s3://b/m.{kind}"]} for kind in ("png", "npz", "csv", "idx3-ubyte", "*")),
        *({"feed": [text]} for text in ("x=s3://b/m.npy", "s3://b/m.npz")),
        *({"checkpoint": ["s3://b/m"]}, {"feed": ["x=[1]"], "output": "s3://b/m.npz"}),
    ],
)
def test_a_path_of_a_file_system_that_is_not_there(line: str, options: dict[str, Any]) -> None:
    with refused(r"^s3://b/m.*: TensorFlow has no file system s3:// here; copy", UserError):
        predict(PredictConfig(**{"meta": line, **options}))


def test_tensors_are_fed_by_name(line: str, tmp_path: Path, said: list[str]) -> None:
    np.savez(tmp_path / "feeds.npz", **{"x:0": np.array([1.0, 2.0]), "y_": np.array([0, 1])})  # type: ignore[arg-type]
    (expected,) = stock.run(line, ["loss:0"], {"x:0": [1, 2], "y_:0": [0, 1]})
    found = document(line, fetch=["y", "loss"], feed=[f"{tmp_path}/feeds.npz"])
    assert found["outputs"] == {"y:0": [2.5, 4.5], "loss:0": expected}
    literal = document(line, fetch=["y", "loss"], feed=["x=[1, 2]", "y_=[0, 1]"])
    assert literal == found
    np.save(tmp_path / "x.npy", np.array([1, 2]))
    assert document(line, feed=[f"x={tmp_path}/x.npy"])["outputs"] == {"y:0": [2.5, 4.5]}
    assert document(line, feed=["x=[1]", "w=[10]"])["outputs"] == {"y:0": [10.5]}  # A variable too.
    assert not [text for text in said if "is fed" in text]
    assert document(line, fetch=["w"], feed=["x=[1]"])["outputs"] == {"w:0": [2]}
    assert said[-1] == "x:0 is fed, and none of w:0 needs it"


def test_a_feed_with_as_many_rows_goes_along_with_them(line: str, tmp_path: Path) -> None:
    x, y = np.arange(5.0), np.arange(5.0) * 3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    options = {"input": [f"{tmp_path}/x.npy"], "feed": [f"y_={tmp_path}/y.npy"]}
    found = document(line, fetch=["sub", "w"], batch_size=2, **options)
    (expected,) = stock.run(line, ["sub:0"], {"x:0": x, "y_:0": y})
    assert found["outputs"] == {"sub:0": expected.tolist(), "w:0": [2]}
    whole = document(line, fetch=["y"], batch_size=2, input=options["input"], feed=["w=[10]"])
    assert whole["outputs"]["y:0"] == (x * 10 + 0.5).tolist()  # In each batch as it is.
    loss = document(line, fetch=["loss"], **options)
    np.testing.assert_allclose(loss["outputs"]["loss:0"], np.mean((2 * x + 0.5 - y) ** 2))


def test_a_classifier_without_names_or_labels_shows_numbers(classifier: str) -> None:
    zeros = np.zeros((1, SIZE, SIZE, 3)).tolist()
    shown = document(classifier, feed=[f"x={zeros}"])
    assert [row["name"] for row in shown["predictions"]] == ["0"]
    assert shown["predictions"][0]["probability"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("names", ["", "x", "xz"])
def test_a_file_may_say_that_it_was_trained_on_shapes(tmp_path: Path, names: str) -> None:
    """Without inputs, without their classes, or with two inputs, there is nothing to show."""

    def build() -> None:
        v1.add_to_collection("trained_on", "shapes")
        given = [v1.placeholder(tf.float32, [None, 8, 8, 3], name=name) for name in names]
        tf.add_n([tf.constant(1.0), *map(tf.reduce_sum, given)], name="y")

    path = saved(tmp_path, build).path
    inputs = {name: f"{name}:0" for name in names}
    stock.sign(Path(path), serving_default=(inputs, {"y": "y:0"}))
    if names:
        with refused("^y:0 needs x:0", PredictionError):
            document(path)
    else:
        assert document(path)["outputs"] == {"y:0": 1}


@pytest.mark.parametrize("of_rows", [False, True])
def test_a_file_may_call_any_two_tensors_a_classifier(tmp_path: Path, of_rows: bool) -> None:
    """Classes that have nothing to do with the rows, or with the probabilities."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        tf.nn.softmax(x, name="probabilities")
        classes = tf.reduce_sum(x, axis=1) if of_rows else tf.constant([1, 2, 0])
        tf.cast(classes, tf.int64, name="classes")

    path = saved(tmp_path, build).path
    results = {name: f"{name}:0" for name in ("probabilities", "classes")}
    stock.sign(Path(path), serving_default=({"x": "x:0"}, results))
    config = PredictConfig(path, feed=["x=[[1, 1, 1]]"])
    assert "classes:0 int64 " in predict(config)
    with refused("do not fit the rows, or each other", PredictionError):
        classify(config)


@pytest.fixture
def signed(tmp_path: Path) -> str:
    """`a` [?] in, doubled and tripled, under keys of two signatures; `twice` is a node as well."""

    def build() -> None:
        a = v1.placeholder(tf.float32, [None], name="a")
        tf.add(tf.multiply(a, 2.0, name="twice"), tf.multiply(a, 3.0, name="mul"), name="unsigned")

    path = saved(tmp_path, build).path
    stock.sign(
        Path(path),
        serving_default=({"rows": "a:0"}, {"scores": "mul:0"}),
        other=({"numbers": "a:0"}, {"twice": "mul:0", "d": "twice:0"}),
    )
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"fetch": ["scores", "unsigned"], "feed": ["rows=[1, 2]"]},
            {"mul:0": [3, 6], "unsigned:0": [5, 10]},
        ),
        *(
            (options, {"mul:0": [3, 6]})
            for options in (
                {"input": ["rows.npy"]},
                {"input": ["rows=rows.npy"]},
                {"feed": ["rows=rows.npy"]},
            )
        ),
        ({"signature": "other", "feed": ["numbers=[1]"]}, {"twice:0": [2], "mul:0": [3]}),
        # A node's name goes before a key.
        ({"signature": "other", "fetch": ["twice"], "feed": ["numbers=[1]"]}, {"twice:0": [2]}),
        ({"feed": ["numbers=[1]"]}, "no tensor 'numbers'"),
        ({"fetch": ["Scores"]}, "no tensor 'Scores'; the nearest are scores"),
    ],
)
def test_keys_of_the_signature_are_names(
    signed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    expected: dict[str, list[int]] | str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.array([1.0, 2.0]))
    if isinstance(expected, dict):
        assert document(signed, **options)["outputs"] == expected
    else:
        with refused(expected, CheckpointError):
            document(signed, **options)


# How rows are cut into runs.


def _fed(name: str, *shape: int | None) -> tuple[TensorInfo, Any]:
    tensor = TensorInfo(f"{name}:0", tf.float32, shape)
    return tensor, array_rows(np.zeros((9, 2), np.float32), tensor, "here")


FREE, OF_FOUR, OF_FIVE = _fed("free", None, 2), _fed("four", 4, 2), _fed("five", 5, 2)
CONSTANT = (TensorInfo("c:0", tf.float32, (3,)), np.zeros(3, np.float32))
WORDS = TensorInfo("words:0", tf.string, (None,))
TEXTS = (WORDS, array_rows(np.array([b"seven"] * 9, object), WORDS, "here"))
ROWS = (TensorInfo("y:0", tf.float32, (None,)), Kind.ROWS)
MEAN = (TensorInfo("mean:0", tf.float32, ()), Kind.WHOLE)


@pytest.mark.parametrize(
    ("feeds", "fetches", "asked", "expected"),
    [
        ([FREE], [ROWS], None, Batching(DEFAULT_BATCH_SIZE, fixed=False)),
        ([FREE, CONSTANT], [ROWS], 3, Batching(3, fixed=False)),
        ([FREE], [ROWS, MEAN], None, Batching(9, fixed=False)),
        ([FREE], [MEAN], 20, Batching(9, fixed=False)),
        ([FREE, OF_FOUR], [ROWS], None, Batching(4, fixed=True)),
        ([OF_FOUR, CONSTANT], [MEAN], 4, Batching(4, fixed=True)),
        ([OF_FOUR, OF_FIVE], [ROWS], None, "different numbers of rows a run: four:0 4, five:0 5"),
        ([OF_FOUR], [ROWS], 5, "four:0 takes 4 rows a run: leave out --batch_size"),
        ([FREE], [MEAN], 8, "mean:0 is one value over all 9 rows.* or give at least 9"),
    ],
)
def test_the_graph_decides_and_then_the_user(
    feeds: Any, fetches: Any, asked: int | None, expected: Batching | str
) -> None:
    if isinstance(expected, Batching):
        assert choose_batching(feeds, fetches, asked) == expected
    else:
        with refused(expected, PredictionError):
            choose_batching(feeds, fetches, asked)


@pytest.mark.parametrize(
    ("feeds", "limit", "expected"),
    [
        ([FREE], 9 * 8, 9),
        ([FREE], 9 * 8 - 1, 8),
        ([FREE], 7, 1),
        ([FREE, FREE, CONSTANT], 9 * 16 + 15, 9),
        ([TEXTS], 7 * 5, 7),
        ([FREE], 10**9, DEFAULT_BATCH_SIZE),
    ],
)
def test_rows_that_are_large_run_in_fewer_at_once(
    monkeypatch: pytest.MonkeyPatch, feeds: Any, limit: int, expected: int
) -> None:
    monkeypatch.setattr(row_runs, "DEFAULT_BATCH_BYTES", limit)
    assert choose_batching(feeds, [ROWS], None) == Batching(expected, fixed=False)
    assert choose_batching(feeds, [ROWS], 100).size == 100
    assert choose_batching(feeds, [MEAN], None).size == 9
