"""Rows whose results do not depend on their company, and graphs that mix their rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metagraph.session import load_inference_graph
from prediction.chosen_model import with_model
from prediction.request import PredictConfig
from tests.conftest import Log, Patch, run_python
from tests.metagraph.made import control_flow, refused, saved
from tests.prediction.conftest import outputs
from tools.freeze import PartConfig
from tools.freezing import freeze_and_compare

v1 = tf.compat.v1

RNG = np.random.default_rng(7)
X = RNG.standard_normal((150, 5)).astype(np.float32)

# In a process of its own, since an operation has one thread: the logits of all rows, and whether
# those of other sizes, orders and numbers of rows are the same bytes.
_PROCESS = """
import sys
from cli.terminal import import_tensorflow
import_tensorflow(1)
import numpy as np
from prediction.evaluation import predict
from metagraph.session import load_inference_graph
from prediction.chosen_model import with_model
from prediction.request import PredictConfig

meta, folder = sys.argv[1:]
rng = np.random.default_rng(0)
x = rng.random((150, 32, 32, 3), np.float32)

def logits(rows, **options):
    np.save(f"{folder}/rows.npy", rows)
    found = f"{folder}/found.npz"
    config = PredictConfig(
        meta, input=[f"{folder}/rows.npy"], fetch=["fc2/add"], output=found, **options
    )
    predict(config)
    with np.load(found) as arrays:
        return arrays["fc2/add:0"]

expected, order = logits(x), rng.permutation(150)
assert not np.array_equal(expected[0], expected[1])
for size in (1, 10, 64, 100, 256):
    assert logits(x, batch_size=size).tobytes() == expected.tobytes(), size
assert logits(x[order]).tobytes() == expected[order].tobytes()
for rows in (slice(7, 8), slice(3, 70), slice(149, 150)):
    assert logits(x[rows]).tobytes() == expected[rows].tobytes(), rows
plain = logits(x, exact_rows=False, batch_size=1)
np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-4)
print("the same bytes")
"""


@pytest.mark.parametrize("onednn", ["0", "1"])
def test_a_row_has_the_same_bytes_in_any_company(
    cnn_run: Path, tmp_path: Path, monkeypatch: Patch, onednn: str
) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    ended = run_python("-c", _PROCESS, cnn_run, tmp_path)
    assert (ended.stdout, ended.returncode) == ("the same bytes\n", 0), ended.stderr
    assert "depend" not in ended.stderr


def _rows(build: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], None]:
    """`x` [?, 5] in, `y` out, which goes by rows as far as its shape tells."""

    def built() -> None:
        x = v1.placeholder(tf.float32, [None, 5], name="x")
        y = tf.identity(build(x), name="computed")
        v1.placeholder_with_default(y, [None, *y.shape[1:]], name="y")

    return built


def _normalized(x: tf.Tensor) -> tf.Tensor:
    ones, none = tf.ones([5]), tf.zeros([0])
    images = tf.reshape(x, [-1, 1, 1, 5])
    y = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=ones, offset=ones, mean=none, variance=none, is_training=True
    )[0]
    return tf.reshape(y, [-1, 5])


def _softmax_over_rows(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(x - x.max(axis=0))
    values: np.ndarray[Any, Any] = powers / powers.sum(axis=0)
    return values


# What it computes, the same in NumPy, and what is named.
MIXING: dict[str, tuple[Any, Any, str]] = {
    "batch norm in training mode": (
        _normalized,
        lambda x: (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-4) + 1,
        "FusedBatchNormV3 (FusedBatchNormV3) normalises over all axes of [?, 1, 1, 5] but the ch",
    ),
    "moments by hand": (
        lambda x: x - tf.reduce_mean(x, axis=0),
        lambda x: x - x.mean(axis=0),
        "Mean (Mean) goes over all rows; --use_moving_averages",
    ),
    "softmax over rows": (lambda x: tf.nn.softmax(x, axis=0), _softmax_over_rows, "(Softmax) goes"),
    "a sum of rows": (
        lambda x: x / tf.reduce_sum(tf.abs(x), axis=-2),
        lambda x: x / np.abs(x).sum(axis=0),
        "Sum (Sum) goes over all rows",
    ),
    "the row before": (lambda x: tf.cumsum(x, axis=0), lambda x: np.cumsum(x, axis=0), "(Cumsum)"),
    "the rows backwards": (lambda x: tf.reverse(x, [0]), lambda x: x[::-1], "(ReverseV2) goes"),
    "the number of rows": (
        lambda x: x + tf.cast(tf.shape(x)[0], tf.float32),
        lambda x: x + np.float32(len(x)),
        "as batch normalisation in training mode has it",
    ),
}


@pytest.mark.parametrize("case", MIXING)
@pytest.mark.parametrize("rows", [2, 150])
def test_a_graph_that_mixes_its_rows_is_said_and_runs_as_it_is(
    tmp_path: Path, caplog: Log, case: str, rows: int
) -> None:
    build, expected, named = MIXING[case]
    np.save(tmp_path / "x.npy", X[:rows])
    meta = saved(tmp_path, _rows(build)).path
    (found,) = outputs(tmp_path, meta, "y", input=[str(tmp_path / "x.npy")])
    np.testing.assert_allclose(found, expected(X[:rows]), rtol=1e-4, atol=1e-5)
    assert "y:0: what a row gives depends on the rows beside it, which run as they" in caplog.text
    assert named in caplog.text


@pytest.mark.parametrize(
    "build",
    [
        lambda x: tf.reduce_mean(tf.stack([x, -x]), axis=0),
        lambda x: tf.map_fn(lambda row: row / tf.reduce_sum(row), x),
        lambda x: tf.transpose(tf.nn.softmax(tf.transpose(x), axis=0)),
        lambda x: x - tf.reduce_mean(x, axis=1, keepdims=True),
    ],
    ids=range(4),
)
def test_what_leaves_rows_alone_is_not_named(
    tmp_path: Path, build: Callable[[tf.Tensor], tf.Tensor]
) -> None:
    with control_flow(new=False):
        meta = saved(tmp_path, _rows(build))
    with load_inference_graph(meta, ["y:0"], ["x:0"]) as graph:
        assert graph.mixing("y:0") == ""


def _follows(kind: str, resource: bool) -> None:
    """`y`, `x` normalised by its batch, which variables follow; it may wait for that."""
    x = v1.placeholder(tf.float32, [None, 5], name="x")
    initial = [np.arange(1, 6, dtype=np.float32) / size for size in (4, 2)]
    kept = [
        v1.get_variable(f"v{number}", initializer=value, use_resource=resource)
        for number, value in enumerate(initial)
    ]
    if kind.startswith("Fused"):
        given = {"scale": tf.ones([5]), "offset": tf.zeros([5]), "mean": [], "variance": []}
        norm = getattr(tf.raw_ops, kind)(x=x[:, None, None], is_training=True, **given)
        y, found = norm[0], norm[1:3]
    else:
        found = tf.nn.moments(x, [0])
    pairs = [*zip(kept, found, strict=True)]
    if kind == "weighted":
        writes = [v1.assign(v, v * 0.9 + s * 0.1) for v, s in pairs]
    else:
        writes = [v1.assign_sub(v, (v - s) * 0.1) for v, s in pairs]
    if not kind.startswith("Fused"):
        with tf.control_dependencies(writes if kind == "waiting" else []):
            y = (x - tf.identity(found[0])) / tf.sqrt(found[1] + 1e-4)
    tf.reshape(y, [-1, 5], name="y")


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "handle"])
@pytest.mark.parametrize(
    "kind",
    ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "moments", "weighted", "waiting"],
)
def test_the_averages_that_training_kept_are_taken(
    tmp_path: Path, caplog: Log, kind: str, resource: bool
) -> None:
    meta = saved(tmp_path, lambda: _follows(kind, resource)).path
    np.save(tmp_path / "x.npy", X)
    given = {"input": [str(tmp_path / "x.npy")], "use_moving_averages": True}
    mean, variance = (np.arange(1, 6, dtype=np.float32) / size for size in (4, 2))
    for size in (None, 7):
        (found,) = outputs(tmp_path, meta, "y", batch_size=size, **given)
        np.testing.assert_allclose(
            found, (X - mean) / np.sqrt(variance + 1e-4), rtol=1e-4, atol=1e-5
        )
    config = PartConfig(meta, "none.pb", outputs=("y",), use_moving_averages=True)
    graph, _, difference = with_model(config, lambda file, _: freeze_and_compare(file, config))
    assert difference == 0
    assert not {n.op for n in graph.meta.graph_def.node} & {"Mean", "AssignSub", "Assign"}
    assert "depends on the rows" not in caplog.text


def test_averages_that_nobody_kept_are_not_taken(tmp_path: Path) -> None:
    with refused("--use_moving_averages: .* keeps none"):
        outputs(tmp_path, saved(tmp_path, _rows(tf.abs)).path, "y", use_moving_averages=True)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_large_rows_run_one_by_one(tmp_path: Path, caplog: Log, rows: int) -> None:
    """So do they where the graph mixes them, which is said of a lone one, too."""
    x = RNG.standard_normal((rows, 600, 600)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 600, 600], name="x")
        tf.reduce_sum(x, axis=[1, 2], name="sum")
        tf.subtract(x[:, 0], tf.reduce_mean(x[:, 0], axis=0), name="mixed")

    meta, given = saved(tmp_path, build).path, [str(tmp_path / "x.npy")]
    (found,) = outputs(tmp_path, meta, "sum", input=given)
    np.testing.assert_allclose(found, x.sum(axis=(1, 2)), rtol=1e-3, atol=0.1)
    assert "depend" not in caplog.text
    (found,) = outputs(tmp_path, meta, "mixed", input=given)
    np.testing.assert_allclose(found, x[:, 0] - x[:, 0].mean(axis=0), atol=1e-5)
    assert "mixed:0: what a row gives depends" in caplog.text
    assert "Mean (Mean) goes over all rows; --use_moving_averages" in caplog.text


def _counting() -> None:
    """`y` is a row and how often the graph has run; no two runs may go side by side."""
    x = v1.placeholder(tf.float32, [None, 5], name="x")
    count = v1.get_variable("count", initializer=0.0, use_resource=False)
    tf.add(x, v1.assign_add(count, 1.0), name="y")


def test_a_graph_with_a_state_runs_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    meta = saved(tmp_path, _counting).path
    (found,) = outputs(tmp_path, meta, "y", input=[str(tmp_path / "x.npy")], batch_size=50)
    np.testing.assert_allclose(found, X + np.repeat([1, 2, 3], 50)[:, None], rtol=1e-6)


def test_a_graph_that_takes_no_more_rows_than_it_is_given(tmp_path: Path) -> None:
    """To be filled up is no way for it, and its own error stays the one that is told."""
    np.save(tmp_path / "x.npy", X[:6])
    np.save(tmp_path / "state.npy", X[:6, :1])

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 5], name="x")
        tf.add(x, v1.placeholder(tf.float32, [None, 1], name="state"), name="y")
        tf.reshape(x, [6, 5], name="six")

    meta, given = saved(tmp_path, build).path, [str(tmp_path / "x.npy")]
    feed = [f"state={tmp_path / 'state.npy'}"]
    (found,) = outputs(tmp_path, meta, "y", input=given, feed=feed)
    np.testing.assert_array_equal(found, X[:6] + X[:6, :1])
    (found,) = outputs(tmp_path, meta, "six", input=given)
    np.testing.assert_array_equal(found, X[:6])


@pytest.mark.parametrize(
    ("options", "variable", "threads"),
    [
        ({}, None, 1),
        ({"input": ["a.npy"], "feed": ["keep_prob=1"]}, None, 1),
        ({"exact_rows": False}, None, None),
        ({"feed": ["x=a.npy"]}, None, None),  # One run of all.
        ({}, "4", None),
    ],
)
def test_one_thread_an_operation(
    monkeypatch: Patch, options: dict[str, Any], variable: str | None, threads: int | None
) -> None:
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", variable)
    assert PredictConfig("m", **options).threads == threads
