"""A TF1 client, written against plain `tf.compat.v1`, works on the checkpoints as they are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

v1 = tf.compat.v1

LINEAR_NAMES = ["x:0", "y_:0", "w:0", "b:0", "y:0", "loss:0", "global_step:0"]
CNN_NAMES = [
    *("x:0", "y_:0", "keep_prob:0"),
    *(f"{scope}/{name}:0" for scope in ("conv1", "conv2", "fc1", "fc2") for name in "wb"),
    *("fc2/add:0", "probabilities:0", "classes:0", "y_labels:0", "acc:0", "loss:0"),
    "global_step:0",
]


def _restore(session: tf.compat.v1.Session, folder: Path, step: int) -> None:
    prefix = str(folder / f"my-model-{step}")
    v1.train.import_meta_graph(prefix + ".meta").restore(session, prefix)


@pytest.mark.parametrize(
    ("run", "last", "kept"),
    [("linear_run", 300, [270, 280, 290, 300]), ("cnn_run", 200, [170, 180, 190, 200])],
)
def test_latest(run: str, last: int, kept: list[int], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    assert v1.train.latest_checkpoint(str(folder)) == str(folder / f"my-model-{last}")
    state = v1.train.get_checkpoint_state(str(folder))
    paths = [str(folder / f"my-model-{step}") for step in kept]
    assert list(state.all_model_checkpoint_paths) == paths
    assert all(v1.train.checkpoint_exists(path) for path in paths)


def test_linear(linear_run: Path) -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        _restore(session, linear_run, 290)
        assert [graph.get_tensor_by_name(name).name for name in LINEAR_NAMES] == LINEAR_NAMES
        w, b, step = session.run(["w:0", "b:0", "global_step:0"])
        assert (w.shape, b.shape, step) == ((1,), (1,), 290)
        np.testing.assert_allclose([w[0], b[0]], [0.1, 0.2], atol=1e-4)
        (prediction,) = graph.get_collection("predict")
        x = np.array([0.0, 0.5, 2.0], np.float32)
        np.testing.assert_allclose(session.run(prediction, {"x:0": x}), w * x + b)
        assert session.run("loss:0", {"x:0": x, "y_:0": w * x + b}) == 0.0


def test_cnn(cnn_run: Path) -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        _restore(session, cnn_run, 190)
        assert [graph.get_tensor_by_name(name).name for name in CNN_NAMES] == CNN_NAMES
        assert session.run("global_step:0") == 190
        images = np.arange(6144, 12288, dtype=np.float32).reshape(2, 32, 32, 3) / 255
        feeds = {"x:0": images, "y_:0": [3, 1]}
        logits = session.run(graph.get_collection("predict")[0], feeds)
        classes, probabilities = session.run(["classes:0", "probabilities:0"], feeds)
        np.testing.assert_array_equal(classes, logits.argmax(axis=1))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        accuracy = session.run("acc:0", feeds)
        assert accuracy == np.mean(classes == [3, 1])
        np.testing.assert_array_equal(session.run("y_labels:0", feeds), np.eye(4)[[3, 1]])
        assert np.isfinite(session.run("loss:0", feeds))


@pytest.mark.parametrize(("run", "step"), [("linear_run", 300), ("cnn_run", 200)])
def test_it_trains_on(run: str, step: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The optimizer comes with the meta graph: its slots are restored, its step runs."""
    folder = shutil.copytree(request.getfixturevalue(run), tmp_path / "moved")
    with tf.Graph().as_default() as graph, v1.Session() as session:
        prefix = v1.train.latest_checkpoint(str(folder))
        saver = v1.train.import_meta_graph(prefix + ".meta")
        saver.restore(session, prefix)
        x = graph.get_tensor_by_name("x:0")
        batch = np.ones([4, *x.shape.as_list()[1:]], np.float32)
        labels = np.ones(4, graph.get_tensor_by_name("y_:0").dtype.as_numpy_dtype)
        session.run(graph.get_collection("train_op")[0], {"x:0": batch, "y_:0": labels})
        assert session.run("global_step:0") == step + 1
        saved = saver.save(session, str(folder / "my-model"), global_step=step + 1)
        assert v1.train.latest_checkpoint(str(folder)) == saved
