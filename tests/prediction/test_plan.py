"""Choosing what is fetched and fed."""

from pathlib import Path

import pytest
import tensorflow as tf

from checkpoints.errors import CheckpointError
from checkpoints.meta_graph_file import MetaGraphFile, read_meta_graph
from prediction import plan
from prediction.errors import PredictionError
from prediction.model import Model, read_model
from tests.prediction import stock

v1 = tf.compat.v1

Opened = tuple[MetaGraphFile, Model]


def _open(path: str) -> Opened:
    meta = read_meta_graph(path)
    return meta, read_model(meta)


@pytest.fixture
def images(classifier: str) -> Opened:
    return _open(classifier)


@pytest.fixture
def numbers(line: str) -> Opened:
    return _open(line)


@pytest.fixture
def pipeline(tmp_path: Path) -> Opened:
    """A graph without a placeholder, a collection or a signature."""
    with stock.checkpoint(tmp_path / "m"):
        data = tf.data.Dataset.from_tensors(1.0)
        v = v1.get_variable("v", initializer=1.0, use_resource=False)
        tf.add(v1.data.make_one_shot_iterator(data).get_next(), v, name="y")
    return _open(f"{tmp_path}/m.meta")


def test_the_default_is_the_collection_with_what_a_report_needs(
    images: Opened, numbers: Opened
) -> None:
    expected = ("logits:0", "probabilities:0", "classes:0")
    assert plan.choose_fetches(*images, []) == expected
    assert plan.choose_fetches(*numbers, []) == ("y:0",)


def test_without_a_collection_it_is_the_signature(images: Opened) -> None:
    meta, model = images
    bare = model._replace(predict=(), classifier=None)
    assert plan.choose_fetches(meta, bare, []) == ("classes:0", "logits:0", "probabilities:0")


def test_what_is_asked_for_is_fetched_once(images: Opened) -> None:
    assert plan.choose_fetches(*images, ["fc/w", "acc", "fc/w:0"]) == ("fc/w:0", "acc:0")
    with pytest.raises(CheckpointError, match="the nearest are probabilities:0"):
        plan.choose_fetches(*images, ["probabilitys"])


def test_nothing_named_is_told(pipeline: Opened) -> None:
    with pytest.raises(PredictionError, match="--fetch"):
        plan.choose_fetches(*pipeline, [])


def test_rows_go_to_the_signatures_input(images: Opened) -> None:
    assert plan.choose_row_input(*images, ["acc:0"], ["y_:0"]) == "x:0"


def test_rows_go_to_the_one_placeholder_that_is_needed(images: Opened, numbers: Opened) -> None:
    assert plan.choose_row_input(*numbers, ["y:0"], []) == "x:0"
    assert plan.choose_row_input(*numbers, ["loss:0"], ["x:0"]) == "y_:0"
    assert plan.choose_row_input(*images, ["acc:0"], ["x:0"]) == "y_:0"


def test_several_candidates_are_listed(numbers: Opened) -> None:
    with pytest.raises(
        PredictionError, match=r"any of x:0 float32 \[\?\], y_:0 float32 \[\?\]: .*--feed"
    ):
        plan.choose_row_input(*numbers, ["loss:0"], [])


def test_no_candidate_is_told(numbers: Opened, pipeline: Opened) -> None:
    with pytest.raises(PredictionError, match=r"w:0 need no .*the graph has x:0 .*, y_:0"):
        plan.choose_row_input(*numbers, ["w:0"], [])
    with pytest.raises(PredictionError, match=r"any tensor can be fed by name with --feed$"):
        plan.choose_row_input(*pipeline, ["y:0"], [])


def test_what_has_to_be_fed_is_told_with_its_type(images: Opened) -> None:
    meta, _ = images
    plan.check_all_fed(meta, ["fc/w:0"], [])
    plan.check_all_fed(meta, ["acc:0"], ["x:0", "y_:0"])
    with pytest.raises(
        PredictionError, match=r"acc:0 needs y_:0 int64 \[\?\]: feed it with --feed y_=\.\.\."
    ):
        plan.check_all_fed(meta, ["logits:0", "acc:0"], ["x:0"])


def test_what_depends_on_what(images: Opened) -> None:
    meta, _ = images
    assert plan.depends_on(meta, "acc:0", ["x:0"])
    assert plan.depends_on(meta, "x:0", ["x:0"])
    assert not plan.depends_on(meta, "fc/w:0", ["x:0"])
    assert plan.unneeded(meta, ["logits:0", "keep_prob:0"], ["x:0", "y_:0", "keep_prob:0"]) == [
        "y_:0"
    ]
