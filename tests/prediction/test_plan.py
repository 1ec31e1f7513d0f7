"""What is fetched and fed: chosen from the graph, read from --feed and from files by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from errors import PredictionError
from metagraph.description import Model
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from prediction import plan
from prediction.evaluation import predict
from prediction.plan import feed_value, read_feeds
from prediction.request import PredictConfig
from tests.metagraph.made import refused, saved
from tests.prediction.conftest import info, outputs, write_npz

v1 = tf.compat.v1


def _open(path: str) -> tuple[MetaGraphFile, Model]:
    meta = read_meta_graph(path)
    return meta, read_model(meta)


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    """A graph without a placeholder, a collection or a signature."""

    def build() -> None:
        data = tf.data.Dataset.from_tensors(1.0)
        tf.add(v1.data.make_one_shot_iterator(data).get_next(), 1.0, name="y")

    return saved(tmp_path, build).path


def test_what_is_fetched(classifier: str, line: str, pipeline: str) -> None:
    """By default the collection with what a report needs, or else the signature; nothing twice."""
    meta, model = _open(classifier)
    expected = ("logits:0", "probabilities:0", "classes:0")
    assert plan.choose_fetches(meta, model, []) == expected
    assert plan.choose_fetches(*_open(line), []) == ("y:0",)
    bare = model._replace(predict=(), classifier=None)
    assert plan.choose_fetches(meta, bare, []) == ("classes:0", "logits:0", "probabilities:0")
    assert plan.choose_fetches(meta, model, ["fc/w", "acc", "fc/w:0"]) == ("fc/w:0", "acc:0")
    with refused("what to compute with --fetch, such as --fetch=y:0$", PredictionError):
        plan.choose_fetches(*_open(pipeline), [])


@pytest.mark.parametrize(
    ("graph", "fetch", "fed", "expected"),
    [
        ("classifier", "acc:0", ["y_:0"], "x:0"),  # The signature's input.
        ("classifier", "acc:0", ["x:0"], "y_:0"),
        ("line", "y:0", [], "x:0"),  # The one placeholder that is needed.
        ("line", "loss:0", ["x:0"], "y_:0"),
        ("line", "loss:0", [], r"x:0 float32 \[\?\], y_:0 float32 \[\?\]: give each as --in"),
        ("line", "w:0", [], r"w:0 need no .*the graph has x:0 .*, y_:0"),
        ("pipeline", "y:0", [], r"graph has IteratorGetNext:0 float32 \[\]$"),
        ("handled", "double:0", [], "pair:0"),  # Where an iterator's rows would come out.
        ("handled", "y:0", ["pair:0"], "pair:1"),
    ],
)
def test_the_tensor_that_rows_are_for(
    request: pytest.FixtureRequest, graph: str, fetch: str, fed: list[str], expected: str
) -> None:
    meta, model = _open(request.getfixturevalue(graph))
    if " " not in expected:
        assert plan.choose_row_input(meta, model, [fetch], fed) == expected
    else:
        with refused(expected, PredictionError):
            plan.choose_row_input(meta, model, [fetch], fed)


@pytest.fixture
def handled(tmp_path: Path) -> str:
    """Rows `pair` [?], [?] of an iterator that a placeholder names; `y` needs both."""

    def build() -> None:
        handle = v1.placeholder(tf.string, [], name="handle")
        kinds, shapes = (tf.float32, tf.float32), ([None], [None])
        iterator = v1.data.Iterator.from_string_handle(handle, kinds, shapes)
        a, b = iterator.get_next(name="pair")
        tf.multiply(a, 2.0, name="double")
        tf.add(a, b, name="y")

    return saved(tmp_path, build).path


def test_a_handle_is_never_asked_for(handled: str) -> None:
    meta, _ = _open(handled)
    kind = r"float32 \[\?\]"
    expected = (
        rf"^y:0 needs pair:0 {kind}, pair:1 {kind}: feed it with --feed pair=\S+ --feed pair:1="
    )
    with refused(expected, PredictionError):
        plan.check_fed(meta, ["y:0"], [])
    plan.check_fed(meta, ["y:0"], ["pair:0", "pair:1"])


# The values of --feed.

LIMIT = 10_000


def _value(text: str, dtype: tf.DType, *shape: int | None) -> Any:
    (feed,) = read_feeds([text], LIMIT)
    return feed_value(feed, info(dtype, *shape))


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("0.5", tf.float32, 0.5),
        ("3", tf.float32, 3.0),
        ("True", tf.bool, True),
        ("[1, 2]", tf.int32, [1, 2]),
        ("[[1, 2.5], [3, 4]]", tf.float64, [[1, 2.5], [3, 4]]),
        ("[]", tf.int64, []),
        ("[]", tf.string, []),
        ("NaN", tf.float32, np.nan),
        ("hello, world", tf.string, b"hello, world"),
        ('["a", "é"]', tf.string, [b"a", b"\xc3\xa9"]),
        ('"a b"', tf.string, b"a b"),
        ("1", tf.bool, True),
        ("[1, 0]", tf.bool, [True, False]),
        ("9223372036854775807", tf.uint64, 2**63 - 1),
        ("[18446744073709551615]", tf.uint64, [2**64 - 1]),
        ("[1, -2.5]", tf.complex128, [1, -2.5]),
    ],
)
def test_literals(text: str, dtype: tf.DType, expected: Any) -> None:
    found = _value(f"t={text}", dtype, *[None] * np.ndim(expected))
    np.testing.assert_array_equal(found, np.array(expected, dtype.as_numpy_dtype))
    assert found.dtype == dtype.as_numpy_dtype


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        ("1.5", tf.int64, "takes int64, found float64"),
        ("[1, 2]", tf.int64, r"takes int64 \[\], found int64 \[2\]"),
        ("[[1], [2, 3]]", tf.int64, "differ in length"),
        ("true", tf.int64, "takes int64, found bool"),
        ("null", tf.int64, "takes a number"),
        ('{"a": 1}', tf.int64, "takes a number"),
        ("1e", tf.int64, "is no JSON"),
        ("", tf.int64, "is no JSON"),
        ("__import__('os')", tf.int64, "is no JSON"),
        ("10000000000000000000000", tf.int64, "takes a number"),
        ("-" * 100_000 + "1", tf.int64, "is no JSON"),
        ("1" * 200_000, tf.int64, "is no JSON"),
        ("maybe", tf.bool, "'maybe' is no JSON; t:0 takes true, false, or a JSON list of them"),
        ("2", tf.bool, "takes bool, found int64; expected true or false"),
        ('"a', tf.string, "is no JSON; t:0 takes a text, or a JSON list of texts in quotes"),
        ('["1", 2.5', tf.string, "is no JSON; t:0 takes a text"),
        ("[1]", tf.string, "takes a text, or a JSON list of texts in quotes; found int64"),
        ('"3"', tf.float32, r"takes a number \(float32\), .*; found a text in quotes"),
    ],
)
def test_literals_that_are_refused(text: str, dtype: tf.DType, message: str) -> None:
    rank = 1 if text.startswith("[") and text != "[1, 2]" else 0
    with refused(f"^(?=.{{,299}}$)--feed t:0=.*{message}", PredictionError):
        _value(f"t:0={text}", dtype, *[None] * rank)


# Several files by name, compared with NumPy.

RNG = np.random.default_rng(3)
A = RNG.standard_normal((1000, 3)).astype(np.float32)
B = RNG.standard_normal(1000).astype(np.float32)
WORDS = [b"w" * (row % 7) for row in range(1000)]
Y = A.sum(axis=1) * B + np.array([len(word) for word in WORDS], np.float32)


def _three_inputs() -> None:
    """`a` [?, 3], `b` [?] and `words` [?], strings, in; `y` [?]."""
    a = v1.placeholder(tf.float32, [None, 3], name="a")
    b = v1.placeholder(tf.float32, [None], name="b")
    words = v1.placeholder(tf.string, [None], name="words")
    lengths = tf.cast(tf.strings.length(words), tf.float32)
    tf.add(tf.reduce_sum(a, axis=1) * b, lengths, name="y")


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("inputs"), _three_inputs).path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A file for each input, each of another kind, and one that is short of a row."""
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "short.npy", B[:-1])
    (tmp_path / "words.txt").write_bytes(b"\n".join(WORDS) + b"\n")
    write_npz(tmp_path / "b.npz", X=B)
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def _check_y(folder: Path, meta: str, texts: list[str], **options: Any) -> None:
    (found,) = outputs(folder, meta, "y", input=texts, **options)
    np.testing.assert_allclose(found, Y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 64, 1000])
@pytest.mark.parametrize("order", [("a", "b", "words"), ("words", "b", "a")])
def test_rows_of_several_files_go_together(
    meta: str, paths: dict[str, str], tmp_path: Path, order: tuple[str, ...], batch_size: int | None
) -> None:
    _check_y(tmp_path, meta, [f"{name}={paths[name]}" for name in order], batch_size=batch_size)


def test_one_without_a_name_is_for_what_is_left(
    meta: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its path has an equals sign."""
    monkeypatch.chdir(tmp_path)
    np.save("b.npy", B)
    _check_y(tmp_path, meta, [paths["a"], f"words:0={paths['words']}"], feed=["b=b.npy"])
    for name in ("a=1.npy", "a=b=c.npy"):
        np.save(name, A)
        for text in (name, f"a={name}"):
            _check_y(tmp_path, meta, [text, f"b={paths['b']}", f"words={paths['words']}"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a={a}", "b={short}", "words={words}"], r"\(for a:0\) has 1000, .*\(for b:0\) has 999"),
        (["a={a}", "a:0={a}"], r"a\.npy: several of --input for a:0 are images, a row each"),
        (["{a}", "{b}"], "could be for any of a:0 .*: give each as --input name="),
        (["b=*.nothing"], r"--input b=\*\.nothing: there is no such file"),
        (["{a}"], "could be for any of a:0 .*, b:0 .*, words:0 .*: give each as --input name="),
        (["aa={a}"], r"--input aa=.*: there is no such file, and .* nearest are a:0"),
        (["a={a}", "b={b}"], r"y:0 needs words:0 string \[\?\].*--input name=file"),
        (["b={b}", "b:0={b}"], r"b\.npz: several of --input for b:0"),
    ],
)
def test_what_does_not_go_together(
    meta: str, paths: dict[str, str], tmp_path: Path, texts: list[str], message: str
) -> None:
    with refused(message, PredictionError):
        _check_y(tmp_path, meta, [text.format(**paths) for text in texts])
    assert not (tmp_path / "out.npz").exists()


def test_patterns_stand_for_files(
    meta: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a name; what is there is no pattern; a tensor is not fed in both ways."""
    monkeypatch.chdir(tmp_path)
    np.save("b[0-9]*.npy", B)
    texts = ["words=w*.txt", "b=b[0-9]*.npy", "[!bs].npy"]
    _check_y(tmp_path, meta, texts)
    found = plan.files_by_tensor(*_open(meta), ["y:0"], texts, {})
    assert found == {"words:0": ["words.txt"], "b:0": ["b[0-9]*.npy"], "a:0": ["a.npy"]}
    for name in ("2.png", "10.png", "1.jpg"):
        Path(name).touch()
    found = plan.files_by_tensor(*_open(meta), ["y:0"], ["a=*.png", "a:0=1.jpg"], {})
    assert found == {"a:0": ["10.png", "2.png", "1.jpg"]}
    with refused("a:0 is fed twice: --feed a=1, --input a=.*npy", PredictionError):
        _check_y(tmp_path, meta, [f"a={paths['a']}"], feed=["a=1"])


def test_labels_that_differ(classifier: str, images: Any, tmp_path: Path) -> None:
    one = write_npz(tmp_path / "one.npz", X=images, Y=np.zeros(7, int))
    two = write_npz(tmp_path / "two.npz", X=np.zeros(7, int), Y=np.ones(7, int))
    config = PredictConfig(classifier, fetch=["acc"], input=[f"x={one}", f"y_={two}"])
    with refused(r"one\.npz, .*two\.npz have different labels", PredictionError):
        predict(config)
