"""The ends of error lines."""

from pathlib import Path

import tensorflow as tf

from metagraph.meta import read_meta_graph
from metagraph.model import described, feedable, fetchable, read_model
from tests.prediction import stock

v1 = tf.compat.v1


def test_many_are_shortened(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        v1.get_variable("v", [1], use_resource=False)
        for index in range(7):
            v1.placeholder(tf.int32, [index], name=f"p{index}")
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    names = [f"p{index}:0" for index in range(7)]
    shown = ", ".join(f"p{index}:0 int32 [{index}]" for index in range(5))
    assert described(meta, names) == f"{shown} and 2 more"
    assert described(meta, names[:1]) == "p0:0 int32 [0]"
    assert feedable(meta, read_model(meta), ["v:0"]) == f", and the graph has {shown} and 2 more"


def test_the_signatures_input_is_offered_first(classifier: str) -> None:
    meta = read_meta_graph(classifier)
    offered = feedable(meta, read_model(meta), ["acc:0"])
    assert offered.startswith(", and the graph has x:0 float32 [?, 4, 4, 3], y_:0 ")


def test_one_signature_in_use_is_nothing_to_choose(classifier: str) -> None:
    meta = read_meta_graph(classifier)
    assert fetchable(meta, read_model(meta)).startswith(", such as --fetch=probabilities:0; or ")
