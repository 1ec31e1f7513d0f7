"""Choosing what is fetched and fed."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import CheckpointError, PredictionError
from metagraph.meta import NO_SIGNATURE, MetaGraphFile, TensorInfo, read_meta_graph
from metagraph.model import Model, read_model
from metagraph.session import load_inference_graph
from prediction import plan
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
    with pytest.raises(
        PredictionError, match=r"what to compute with --fetch, such as --fetch=y:0$"
    ):
        plan.choose_fetches(*pipeline, [])


def test_candidates_are_offered(images: Opened) -> None:
    meta, model = images
    bare = model._replace(predict=(), signature=NO_SIGNATURE, signatures=(), classifier=None)
    with pytest.raises(PredictionError, match=r"such as --fetch=probabilities:0; or classes:0$"):
        plan.choose_fetches(meta, bare, [])


def test_where_nothing_is_computed_the_list_is_offered(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", [2], use_resource=False)
    with pytest.raises(PredictionError, match=r"with --fetch \(--list shows the graph\)$"):
        plan.choose_fetches(*_open(f"{tmp_path}/m.meta"), [])


def _never(_: TensorInfo) -> bool:
    return False


def _always(_: TensorInfo) -> bool:
    return True


def test_rows_go_to_the_signatures_input(images: Opened) -> None:
    assert plan.choose_row_input(*images, ["acc:0"], ["y_:0"], _never) == "x:0"


def test_rows_go_to_the_one_placeholder_that_is_needed(images: Opened, numbers: Opened) -> None:
    assert plan.choose_row_input(*numbers, ["y:0"], [], _never) == "x:0"
    assert plan.choose_row_input(*numbers, ["loss:0"], ["x:0"], _never) == "y_:0"
    assert plan.choose_row_input(*images, ["acc:0"], ["x:0"], _never) == "y_:0"


def test_several_candidates_are_listed(numbers: Opened) -> None:
    with pytest.raises(
        PredictionError,
        match=r"any of x:0 float32 \[\?\], y_:0 float32 \[\?\]: give each as --input",
    ):
        plan.choose_row_input(*numbers, ["loss:0"], [], _never)


def test_of_several_candidates_the_one_that_fits_is_taken(numbers: Opened) -> None:
    def is_label(info: TensorInfo) -> bool:
        return info == ("y_:0", tf.float32, (None,))

    assert plan.choose_row_input(*numbers, ["loss:0"], [], is_label) == "y_:0"
    with pytest.raises(PredictionError, match=r"any of x:0 .*, y_:0"):
        plan.choose_row_input(*numbers, ["loss:0"], [], _always)


def test_no_candidate_is_told(numbers: Opened, pipeline: Opened) -> None:
    with pytest.raises(PredictionError, match=r"w:0 need no .*the graph has x:0 .*, y_:0"):
        plan.choose_row_input(*numbers, ["w:0"], [], _never)
    with pytest.raises(PredictionError, match=r"graph has IteratorGetNext:0 float32 \[\]$"):
        plan.choose_row_input(*pipeline, ["y:0"], [], _never)


def test_what_this_tensorflow_lacks_can_still_be_offered(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.placeholder(tf.float32, name="x")
        v1.get_variable("v", [2], use_resource=False)

    def change(proto: MetaGraphDef) -> None:
        (node,) = (node for node in proto.graph_def.node if node.name == "x")
        node.attr["dtype"].type = 999

    stock.edit_meta(tmp_path / "m.meta", change)
    with pytest.raises(PredictionError, match=r"the graph has x:0$"):
        plan.choose_row_input(*_open(f"{tmp_path}/m.meta"), ["v:0"], [], _never)


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


def test_nodes_that_take_each_other_do_not_hang(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", [2], use_resource=False)

    def tie(proto: MetaGraphDef) -> None:
        for name, other in ("ab", "ba"):
            node = proto.graph_def.node.add(name=name, op="Identity", input=[other, f"^{name}"])
            node.attr["T"].type = tf.float32.as_datatype_enum

    stock.edit_meta(tmp_path / "m.meta", tie)
    meta, model = _open(f"{tmp_path}/m.meta")
    assert plan.unfed(meta, ["a:0"], []) == ()
    assert plan.choose_fetches(meta, model, ["a"]) == ("a:0",)
    with pytest.raises(CheckpointError, match="cannot be imported"):
        load_inference_graph(meta, ["a:0"])


@pytest.fixture
def handled(tmp_path: Path) -> Opened:
    """Rows `pair` [?], [?] of an iterator that a placeholder names; `y` needs both."""
    with stock.checkpoint(tmp_path / "m"):
        handle = v1.placeholder(tf.string, [], name="handle")
        iterator = v1.data.Iterator.from_string_handle(
            handle, (tf.float32, tf.float32), ([None], [None])
        )
        a, b = iterator.get_next(name="pair")
        v = v1.get_variable("v", initializer=2.0, use_resource=False)
        tf.multiply(a, v, name="double")
        tf.add(a, b, name="y")
    return _open(f"{tmp_path}/m.meta")


def test_rows_go_where_an_iterators_would_come_out(handled: Opened) -> None:
    assert plan.choose_row_input(*handled, ["double:0"], [], _never) == "pair:0"
    assert plan.choose_row_input(*handled, ["y:0"], ["pair:0"], _never) == "pair:1"


def test_a_handle_is_never_asked_for(handled: Opened) -> None:
    meta, _ = handled
    with pytest.raises(
        PredictionError, match=r"needs pair:0 .*, pair:1 .*--feed pair=\S+ --feed pair:1="
    ) as caught:
        plan.check_all_fed(meta, ["y:0"], [])
    assert "handle" not in str(caught.value).removeprefix(meta.path)
    plan.check_all_fed(meta, ["y:0"], ["pair:0", "pair:1"])
    with load_inference_graph(meta, ["y:0"], ["pair:0", "pair:1"]) as graph:
        (y,) = graph.run(np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    assert y.tolist() == [4, 6]
