"""Which signature is used, and what it names."""

from pathlib import Path

import pytest
import tensorflow as tf

from errors import CheckpointError
from metagraph.meta import NO_SIGNATURE, MetaGraphFile, choose_signature, read_signatures
from metagraph.opening import open_model

v1 = tf.compat.v1


def _meta(*names: str) -> MetaGraphFile:
    """A graph x -> y with signatures of these names, each for both tensors."""
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(x, 1.0, name="y")
        proto = v1.train.export_meta_graph()
        for name in names:
            definition = v1.saved_model.predict_signature_def({"in": x}, {"out": y, "again": y})
            proto.signature_def[name].CopyFrom(definition)
    return MetaGraphFile("m.meta", "m", proto)


def _chosen(meta: MetaGraphFile, asked: str | None = None) -> str:
    return choose_signature(meta, read_signatures(meta), asked).name


def test_keys_and_tensors() -> None:
    signature = read_signatures(_meta("a"))["a"]
    assert signature.inputs == {"in": "x:0"}
    assert list(signature.outputs.items()) == [("again", "y:0"), ("out", "y:0")]


def test_what_names_no_tensor_is_left_out() -> None:
    meta = _meta("a")
    meta.proto.signature_def["a"].outputs["lost"].name = "nowhere:0"
    meta.proto.signature_def["a"].inputs["sparse"].coo_sparse.values_tensor_name = "x:0"
    assert read_signatures(meta)["a"].outputs.keys() == {"again", "out"}
    assert read_signatures(meta)["a"].inputs.keys() == {"in"}


def test_the_default_is_serving_default_or_the_only_one() -> None:
    assert _chosen(_meta("a", "serving_default", "b")) == "serving_default"
    assert _chosen(_meta("a")) == "a"
    several = _meta("b", "a")
    assert choose_signature(several, read_signatures(several), None) == NO_SIGNATURE
    assert list(read_signatures(several)) == ["a", "b"]


def test_what_is_asked_for_is_used() -> None:
    assert _chosen(_meta("a", "serving_default"), "a") == "a"
    with pytest.raises(CheckpointError, match=r"m\.meta has no signature 'A'; there is a$"):
        _chosen(_meta("a", "serving_default"), "A")
    with pytest.raises(CheckpointError, match=r"'zzzz'; there is a, serving_default$"):
        _chosen(_meta("a", "serving_default"), "zzzz")
    with pytest.raises(CheckpointError, match=r"no signature 'a', and no other$"):
        _chosen(_meta(), "a")


def test_a_saved_models_own_initializer_is_no_signature(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable(2.0)
    spec = tf.TensorSpec([], tf.float32, name="x")
    call = tf.function(lambda x: {"y": x * module.v}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": call})
    meta = open_model(str(tmp_path))
    assert len(meta.proto.signature_def) == 2
    assert _chosen(meta) == "double"
