"""What is read from a meta graph's signature and collections."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import NO_SIGNATURE, read_meta_graph
from metagraph.model import Classifier, Model, described, feedable, fetchable, read_model
from tests.prediction import stock
from tests.prediction.conftest import CLASS_NAMES, SCALE, build_classifier, describe_classifier

v1 = tf.compat.v1


def _model(path: Path | str) -> Model:
    return read_model(read_meta_graph(str(path)))


def test_a_classifier_describes_itself(classifier: str) -> None:
    model = _model(classifier)
    assert model.inputs == {"x": "x:0"}
    assert model.outputs == {name: f"{name}:0" for name in ("logits", "probabilities", "classes")}
    assert model.predict == ("logits:0",)
    assert model.class_names == CLASS_NAMES
    assert np.float32(model.input_scale).tobytes() == SCALE.tobytes()
    assert model.trained_on is None
    assert model.classifier == Classifier("probabilities:0", "classes:0", 3)


def test_a_strangers_file_may_say_next_to_nothing(line: str) -> None:
    assert _model(line) == Model(NO_SIGNATURE, (), ("y:0",), (), None, None, None)


def test_entries_that_name_no_tensor_are_left_out(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):
        build_classifier()

    def add_strays(proto: MetaGraphDef) -> None:
        describe_classifier(proto)
        proto.collection_def["predict"].node_list.value.extend(["Adam", "acc"])
        proto.signature_def["serving_default"].outputs["gone"].name = "gone:0"
        proto.collection_def["class_names"].bytes_list.value.append(b"\xff")
        proto.collection_def["trained_on"].bytes_list.value.append(b"ramp")

    stock.edit_meta(tmp_path / "m.meta", add_strays)
    model = _model(tmp_path / "m.meta")
    assert model.predict == ("logits:0", "acc:0")
    assert "gone" not in model.outputs
    assert model.class_names[-1] == "\ufffd"
    assert model.trained_on == "ramp"


def test_classes_and_probabilities_of_another_kind_make_no_classifier(tmp_path: Path) -> None:
    with stock.checkpoint(tmp_path / "m"):  # As an Estimator's classifier has them.
        v1.get_variable("w", [1], use_resource=False)
        v1.placeholder(tf.float32, [None, 2], name="probabilities")
        v1.placeholder(tf.string, [None, 1], name="classes")

    def sign(proto: MetaGraphDef) -> None:
        for name in ("probabilities", "classes"):
            proto.signature_def["serving_default"].outputs[name].name = f"{name}:0"

    stock.edit_meta(tmp_path / "m.meta", sign)
    assert _model(tmp_path / "m.meta").classifier is None


def test_a_signature_that_is_asked_for_is_the_prediction(classifier: str) -> None:
    meta = read_meta_graph(classifier)
    assert read_model(meta).predict == ("logits:0",)
    model = read_model(meta, "serving_default")
    assert model.predict == ()
    assert model.signature.name == "serving_default"
    assert model.fetch_keys["classes"] == "classes:0"
    assert model.feed_keys["x"] == "x:0"


# The ends of error lines.


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
