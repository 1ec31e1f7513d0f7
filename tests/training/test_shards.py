"""A step in shards, its place among the workers, and what TF_CONFIG may say."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import train_cnn
from cli.fields import parse
from data.batches import ShuffledBatches, TrainingBatches, augment
from data.files import LabelledSource
from errors import BadRowsError, DataError, TrainingError
from models import cnn, linear, mlp
from models.blocks import PLAIN, ModelGraph, Recipe, dropout, key
from tests.conftest import Patch
from train_linear import LinearConfig
from training import config, shards
from training.shards import ShardedSession, Share, tree_sum
from training.task import GraphSession
from training.workers import LAUNCHED, TF_CONFIG, Place, present_place

SEED = 7
RNG = np.random.default_rng(0)
BATCHES: dict[str, tuple[np.ndarray[Any, Any], ...]] = {
    **dict.fromkeys(
        ("cnn", "cnn with all additions"),
        (RNG.random((16, 32, 32, 3), np.float32), np.arange(16) % 4),
    ),
    "mlp": (RNG.random((16, 784), np.float32), np.eye(10, dtype=np.float32)[np.arange(16) % 10]),
    "linear": (RNG.random(16, np.float32), RNG.random(16, np.float32)),
}
ALL = Recipe(0.1, (1.0, 2.0, 0.5, 1.0), 0.1, 0.5, 0.99)


def _model(name: str) -> ModelGraph:
    if name.startswith("cnn"):
        recipe = PLAIN if name == "cnn" else ALL
        return cnn.build(num_classes=4, learning_rate=1e-3, seed=SEED, recipe=recipe)
    if name == "mlp":
        return mlp.build(learning_rate=1e-3, seed=SEED)
    return linear.build(learning_rate=0.1, seed=SEED)


def _share(at_once: int = 1) -> Share:
    return Share(4, range(4), at_once)


@pytest.mark.parametrize("operation", ["StatelessRandomUniform", "StatelessRandomNormal"])
@pytest.mark.parametrize("shape", [[128], [625], [3], [5, 7, 2], [1]])
def test_the_rows_of_a_draw_are_those_of_the_whole_one(operation: str, shape: list[int]) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        draw = getattr(tf.raw_ops, operation)
        count = tf.compat.v1.placeholder(tf.int64, [])
        drawn = draw(shape=tf.stack([count, *shape]), seed=key(SEED, 100, 12345))
        whole = session.run(drawn, {count: 64})
        for first, rows in ((0, 64), (0, 1), (1, 1), (7, 9), (32, 32), (63, 1)):
            place = [tf.constant(number, tf.int64) for number in (first, rows)]
            part = session.run(shards._rows_of(drawn, *place))
            assert part.tobytes() == whole[first : first + rows].tobytes()


def test_a_sum_is_of_pairs_and_of_their_sums() -> None:
    """Not from left to right: these four numbers tell."""
    rows = [np.array([value], np.float32) for value in (1e8, 1.0, -1e8, 1.0)]
    pairs = (np.float32(1e8) + np.float32(1)) + (np.float32(-1e8) + np.float32(1))
    assert sum(np.float32(row[0]) for row in rows) != pairs
    copies = [row.copy() for row in rows]
    assert tree_sum(copies)[0] == pairs
    assert tree_sum([tree_sum(rows[:2]), tree_sum(rows[2:])])[0] == pairs


@pytest.mark.parametrize("name", BATCHES)
def test_a_sharded_step_is_nearly_the_plain_one(name: str) -> None:
    """Its masks are the rows of the same mask; what differs is the order of additions."""
    batch = BATCHES[name]
    plain, sharded = GraphSession(_model(name)), ShardedSession(_model(name), _share())
    with plain, sharded:
        for session in (plain, sharded):
            session.initialize({})
        for _ in range(3):
            expected, found = plain.train_step(batch), sharded.train_step(batch)
            assert found == pytest.approx(expected, rel=1e-4)
        others = sharded.variables()
        for variable, value in plain.variables().items():
            np.testing.assert_allclose(others[variable], value, rtol=2e-2, atol=2e-4)
        assert others["global_step"] == 3


@pytest.mark.parametrize("name", ["cnn", "cnn with all additions"])
def test_the_bytes_do_not_depend_on_what_is_computed_at_once_or_by_whom(name: str) -> None:
    batch = BATCHES[name]
    with ShardedSession(_model(name), _share(2)) as whole:
        whole.initialize({})
        expected = whole.train_step(batch)
        parts: list[Any] = []

        def note(row: Any) -> list[Any]:
            parts.append(row.copy())
            return [row, row.copy()]

        for rank in range(2):
            rows = slice(8 * rank, 8 * rank + 8)
            with ShardedSession(_model(name), Share(4, range(2 * rank, 2 * rank + 2), 1)) as half:
                half.initialize({})
                half.exchange = note
                half.train_step(tuple(column[rows] for column in batch))
        with ShardedSession(_model(name), Share(4, range(2), 1)) as half:
            half.initialize({})
            half.exchange = lambda _: parts
            assert half.train_step(tuple(column[:8] for column in batch)) == expected
            found = half.variables()
            for variable, value in whole.variables().items():
                assert found[variable].tobytes() == value.tobytes()


def test_what_cannot_be_cut_into_rows_is_refused() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, None], "x")
        w = tf.compat.v1.get_variable("w", [], use_resource=False)
        step = tf.compat.v1.train.get_or_create_global_step()
        loss = tf.reduce_mean(dropout(x, tf.constant(0.5), SEED, 1, step) * w)
        (gradient,) = tf.gradients(loss, [w])
    model = _model("linear")
    model.graph, model.inputs, model.loss = graph, (x,), loss
    model.gradients, model.train_op = (gradient,), step.initializer
    with pytest.raises(TrainingError, match=r"--shards cannot draw .* train with --shards=1"):
        ShardedSession(model, _share())


# Rows of batches.


def test_the_rows_of_all_workers_are_the_batch(tmp_path: Path) -> None:
    """Augmented; of images from files, and of the points."""
    given = ["--data=ramp", "--batch_size=8", "--augment", "--shards=4", f"--ckpt_dir={tmp_path}"]
    task = train_cnn.make_task(parse(train_cnn.CnnConfig, ["s", *given]))
    for step in range(3):
        (whole,) = task.batches(step, step + 1)
        parts = [next(task.batches(step, step + 1, slice(i, i + 2))) for i in range(0, 8, 2)]
        for column, those in zip(whole, zip(*parts, strict=True), strict=True):
            assert np.concatenate(those).tobytes() == column.tobytes()
    images = RNG.random((5, 8, 8, 3))
    assert (augment(images, SEED, 3)[2:] == augment(images[2:], SEED, 3, first=2)).all()


class _Damaged:
    """Images of which some cannot be read."""

    workers = 1
    shape = (20, 1)
    dtype = np.dtype(np.uint8)

    def take(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        wrong = {i: DataError("bad") for i, row in enumerate(indices) if row in (3, 4, 11)}
        if wrong:
            raise BadRowsError(wrong)
        return indices.astype(np.uint8)[:, np.newaxis]


def test_what_stands_in_for_bad_rows_does_not_depend_on_who_reads_them() -> None:
    def batches() -> TrainingBatches:
        source: Any = LabelledSource(_Damaged(), np.arange(20))  # type: ignore[arg-type]
        return TrainingBatches(source, ShuffledBatches(20, 8, SEED), "skip")

    whole, half = batches(), batches()
    for step in range(8):
        labels = whole.batch(step)[1]
        assert half.batch(step, slice(4, 8))[1].tolist() == labels[4:].tolist()
        assert not {3, 4, 11} & {*labels.tolist()}


# Where a worker stands.


def _told(
    cluster: Mapping[str, Any], kind: str = "worker", index: Any = 0, more: Any = None
) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}, **(more or {})})


TWO = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Place()),
        ("{}", Place()),
        (_told({"worker": ["a:1"]}), Place()),
        (_told(TWO, index=1), Place(1, ("a:1", "b:2"))),
        (_told(TWO, index="1"), Place(1, ("a:1", "b:2"))),
        (_told({"chief": ["c:1"], **TWO}, index=1), Place(2, ("c:1", "a:1", "b:2"))),
        (_told({"master": ["c:1"], **TWO}, "master"), Place(0, ("c:1", "a:1", "b:2"))),
        (_told({"worker": ["[::1]:1", "b:2"]}), Place(0, ("[::1]:1", "b:2"))),
        (_told(TWO, more={LAUNCHED: {"network": 5}}), Place(0, ("a:1", "b:2"), True, 5)),
    ],
)
def test_the_place_that_tf_config_gives(monkeypatch: Patch, text: str, expected: Place) -> None:
    monkeypatch.setenv(TF_CONFIG, text)
    assert present_place() == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "has no attribute"),
        (_told({"ps": ["a:1"], **TWO}), "there is no place for a ps in its cluster"),
        (_told({"worker": ["a", "b:2"]}), "'a' is no address such as host:2222"),
        (_told({"worker": ["a:70000", "b:2"]}), "'a:70000' is no address"),
        (_told({"worker": ["a:1", "a:1"]}), "two of its workers have one address"),
        (_told({"chief": ["a:1", "b:1"]}, "chief"), "more than one chief"),
        (_told(TWO, "evaluator"), "its task is a evaluator"),
        (_told(TWO, "chief"), "its task is a chief"),
        (_told(TWO, index=2), "its task has the index 2, of 2"),
        (_told(TWO, index="x"), "invalid literal for int"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "'task' is missing"),
    ],
)
def test_a_tf_config_that_cannot_be_used(monkeypatch: Patch, text: str, reason: str) -> None:
    monkeypatch.setenv(TF_CONFIG, text)
    with pytest.raises(
        TrainingError, match=r"TF_CONFIG cannot be used: .*expected such as"
    ) as told:
        present_place()
    assert reason in str(told.value)


def test_rows_and_shards_of_a_worker(monkeypatch: Patch) -> None:
    one, four = (config.RunConfig("run", shards=count) for count in (1, 4))
    assert one.rows(10) == slice(None)
    assert four.rows(8) == slice(0, 8)
    with pytest.raises(TrainingError, match="--shards=4 does not divide a batch of 10"):
        four.rows(10)
    monkeypatch.setenv(TF_CONFIG, _told(TWO, index=1))
    assert four.rows(8) == slice(4, 8)
    for count in (1, 3):
        with pytest.raises(TrainingError, match=f"2 workers, which cannot share --shards={count}"):
            config.RunConfig("run", shards=count).rows(12)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--shards=3", "must be a power of two"),
        ("--workers=2", "--workers must divide --shards, such as --shards=4 --workers=2"),
        ("--shards=4 --workers=3", "--workers must divide --shards"),
        ("--start_timeout=0", "must be seconds above 0"),
        ("--worker_timeout=nan", "must be seconds above 0"),
    ],
)
def test_flags_that_do_not_fit(flags: str, line: str) -> None:
    with pytest.raises(Exception, match=line):
        parse(LinearConfig, ["s", *flags.split()])


def test_another_number_of_shards_is_another_run(
    linear_config: Callable[..., LinearConfig], tmp_path: Path
) -> None:
    """And the meta graph is that of a run of one."""
    import train_linear

    config = linear_config(tmp_path / "run", train_steps=10)
    train_linear.train(config)
    plain = (tmp_path / "run" / "my-model-10.meta").read_bytes()
    sharded = linear_config(tmp_path / "run", train_steps=20, shards=4)
    with pytest.raises(TrainingError, match="shards was not given, is now 4"):
        train_linear.train(sharded)
    anew = linear_config(tmp_path / "anew", train_steps=10, shards=4)
    assert train_linear.train(anew).exit_code == 0
    assert (tmp_path / "anew" / "my-model-10.meta").read_bytes() == plain
