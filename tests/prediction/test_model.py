"""What a meta graph says of its model, the ends of error lines, and the state of its checkpoint."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import CheckpointReader
from metagraph.description import NO_SIGNATURE, Classifier, Model
from metagraph.meta import read_meta_graph
from metagraph.model import described, feedable, fetchable, missing_values, read_model, state_text
from tests.metagraph.made import saved
from tests.prediction import stock
from tests.prediction.conftest import CLASS_NAMES, SCALE, build_classifier, describe_classifier

v1 = tf.compat.v1


def test_a_classifier_describes_itself(classifier: str) -> None:
    meta = read_meta_graph(classifier)
    model = read_model(meta)
    assert model.inputs == {"x": "x:0"}
    assert model.outputs == {name: f"{name}:0" for name in ("logits", "probabilities", "classes")}
    assert model.predict == ("logits:0",)
    assert model.class_names == CLASS_NAMES
    assert np.float32(model.input_scale).tobytes() == SCALE.tobytes()
    assert model.trained_on is None
    assert model.classifier == Classifier("probabilities:0", "classes:0", 3)
    asked = read_model(meta, "serving_default")  # Then its outputs are the prediction.
    assert (asked.predict, asked.signature.name) == ((), "serving_default")
    assert (asked.fetch_keys["classes"], asked.feed_keys["x"]) == ("classes:0", "x:0")


def test_a_strangers_file_may_say_next_to_nothing(line: str) -> None:
    assert read_model(read_meta_graph(line)) == Model(
        NO_SIGNATURE, (), ("y:0",), (), None, None, None
    )


def test_entries_that_name_no_tensor_are_left_out(tmp_path: Path) -> None:
    meta = saved(tmp_path, build_classifier)
    describe_classifier(meta.proto)
    meta.proto.collection_def["predict"].node_list.value.extend(["Adam", "acc"])
    meta.proto.signature_def["serving_default"].outputs["gone"].name = "gone:0"
    meta.proto.collection_def["class_names"].bytes_list.value.append(b"\xff")
    meta.proto.collection_def["trained_on"].bytes_list.value.append(b"ramp")
    model = read_model(meta)
    assert model.predict == ("logits:0", "acc:0")
    assert "gone" not in model.outputs
    assert model.class_names[-1] == "\ufffd"
    assert model.trained_on == "ramp"


def test_classes_and_probabilities_of_another_kind_make_no_classifier(tmp_path: Path) -> None:
    def build() -> None:  # As an Estimator's classifier has them.
        v1.placeholder(tf.float32, [None, 2], name="probabilities")
        v1.placeholder(tf.string, [None, 1], name="classes")

    meta = saved(tmp_path, build)
    for name in ("probabilities", "classes"):
        meta.proto.signature_def["serving_default"].outputs[name].name = f"{name}:0"
    assert read_model(meta).classifier is None


def test_many_are_shortened(tmp_path: Path) -> None:
    meta = saved(
        tmp_path, lambda: [v1.placeholder(tf.int32, [size], name=f"p{size}") for size in range(7)]
    )
    names = [f"p{index}:0" for index in range(7)]
    shown = ", ".join(f"p{index}:0 int32 [{index}]" for index in range(5))
    assert described(meta, names) == f"{shown} and 2 more"
    assert described(meta, names[:1]) == "p0:0 int32 [0]"
    assert feedable(meta, read_model(meta), ["v:0"]) == f", and the graph has {shown} and 2 more"


def test_what_is_offered(classifier: str) -> None:
    meta = read_meta_graph(classifier)
    offered = feedable(meta, read_model(meta), ["acc:0"])  # The signature's input first.
    assert offered.startswith(", and the graph has x:0 float32 [?, 4, 4, 3], y_:0 ")
    offered = fetchable(meta, read_model(meta))  # One signature in use is nothing to choose.
    assert offered.startswith(", such as --fetch=probabilities:0; or ")


# The checkpoint, before any value is read.


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _save_some(folder: Path) -> None:
    with stock.checkpoint(folder / "m", write_meta_graph=False):
        for name, shape in (("v", [4]), ("w", [3])):
            v1.get_variable(name, shape, use_resource=False)


def _no_dtype(folder: Path) -> None:
    def damage(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            node.attr["dtype"].type = 99 if node.name == "w" else node.attr["dtype"].type

    stock.edit_meta(folder / "m.meta", damage)


DATA = ".data-00000-of-00001"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda _: None, []),
        (_save_some, ["u is missing", "v is float32 [4], the graph has float32 [3]"]),
        (lambda folder: _cut(folder / f"m{DATA}"), ["its files are smaller than the values"]),
        (lambda folder: _cut(folder / "m.index"), ["its index cannot be read"]),
        (lambda folder: (folder / f"m{DATA}").unlink(), [f"data file {{}}/m{DATA} is missing"]),
        (lambda folder: (folder / "m.index").unlink(), ["has no variables"]),
        (_no_dtype, ["there is no dtype 99"]),
    ],
    ids=["well", "some", "short data", "short index", "no data", "no index", "no dtype"],
)
def test_the_state_of_a_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    expected: Sequence[str],
) -> None:
    saved(tmp_path, lambda: [v1.get_variable(name, [3]) for name in "uvw"])
    damage(tmp_path)
    monkeypatch.delattr(CheckpointReader, "read")  # No value is read.
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    found = missing_values(meta, ())
    assert len(found) == len(expected)
    for part, told in zip(expected, found, strict=True):
        assert part.format(tmp_path) in told
    first, *lines = state_text(meta, found).splitlines()[1:]
    assert first == "checkpoint"
    state = "lacks values" if expected else "has a value for each variable that is needed"
    assert lines == [f"  {tmp_path}/m {state}", *(f"  {told}" for told in found)]


@pytest.mark.parametrize(
    ("outputs", "problems"),
    [
        (["y:0"], []),
        (["both:0"], ["u is missing"]),
        (["y:0", "both:0", "z:0"], ["u is missing", "z is missing"]),
        ([], ["u is missing", "z is missing"]),
    ],
)
@pytest.mark.parametrize("resource", [False, True])
def test_only_what_an_output_needs_is_told(
    tmp_path: Path, outputs: Sequence[str], problems: list[str], resource: bool
) -> None:
    kept = list[tf.Variable]()
    with stock.checkpoint(tmp_path / "m", var_list=kept):
        u, w, _ = (v1.get_variable(name, [3], use_resource=resource) for name in "uwz")
        kept.append(w)
        tf.add(u, tf.multiply(w, 2.0, name="y"), name="both")
    assert missing_values(read_meta_graph(f"{tmp_path}/m.meta"), outputs) == problems


def test_the_manifest_speaks_of_the_index(linear_run: Path, tmp_path: Path) -> None:
    for path in linear_run.glob("my-model-300.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    meta = read_meta_graph(f"{tmp_path}/my-model-300.meta")
    assert missing_values(meta, ()) == []
    index = (linear_run / "my-model-290.index").read_bytes()
    (tmp_path / "my-model-300.index").write_bytes(index)
    (line,) = missing_values(meta, ())
    assert "my-model-300.index is damaged" in line
