"""The model that is asked for, found and whole, and what --list says of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from checkpoints import folder, layout
from errors import CheckpointError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from metagraph.session import load_inference_graph
from prediction import chosen_model
from prediction.chosen_model import listing
from prediction.output import Record, listing_text
from tests.metagraph.made import of_graph, of_proto, refused, saved
from tests.prediction import stock
from tests.prediction.conftest import document
from tests.runs import flip_a_bit
from tools.freeze import FreezeConfig
from tools.freezing import freeze_to_file

v1 = tf.compat.v1


def _delete_when_read(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    """A trainer's retention takes these checkpoints away just as each is opened."""

    def read_then_gone(meta: MetaGraphFile, *arguments: Any, **options: Any) -> Any:
        step = int(meta.prefix.rsplit("-", 1)[1])
        if step in steps:
            folder.delete_checkpoint(str(Path(meta.path).parent), step)
        return load_inference_graph(meta, *arguments, **options)

    monkeypatch.setattr(chosen_model, "load_inference_graph", read_then_gone)


def test_what_is_deleted_is_read_anew(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _delete_when_read(monkeypatch, [300, 290])
    assert document(str(run), fetch=["global_step"])["outputs"] == {"global_step:0": 280}


@pytest.mark.parametrize(
    ("meta", "checkpoint", "message"),
    [
        (290, None, r"deleted while .* newest is my-model-300\.meta"),
        (300, 280, r"\(--ckpt=.* always reads the newest\)"),
    ],
)
def test_what_was_asked_for_and_is_deleted_is_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, meta: int, checkpoint: int | None, message: str
) -> None:
    _delete_when_read(monkeypatch, [checkpoint or meta])
    variables = [f"{run}/my-model-{checkpoint}"] if checkpoint else []
    with refused(message, CheckpointError):
        document(f"{run}/my-model-{meta}.meta", fetch=["w:0"], checkpoint=variables)


def test_variables_of_another_checkpoint(run: Path) -> None:
    """Of the graph's own, only the graph is read and verified."""
    graph, other = f"{run}/my-model-290.meta", f"{run}/my-model-300"
    asked: dict[str, Any] = {"fetch": ["global_step"], "checkpoint": [other]}
    for lost in ("my-model-290.index", "my-model-290.data-00000-of-00001", "my-model-300.meta"):
        (run / lost).unlink()
    found = document(graph, **asked)
    assert found["outputs"] == {"global_step:0": 300}
    assert (found["meta"], found["checkpoint"]) == (graph, other)
    flip_a_bit(run / "my-model-300.data-00000-of-00001")
    with refused(r"my-model-300\.data-\S+ is damaged", CheckpointError):
        document(graph, **asked)
    flip_a_bit(Path(graph))
    for options in ({"list": True}, asked):
        with refused(r"my-model-290\.meta is damaged", CheckpointError):
            document(graph, **options)


@pytest.mark.parametrize("name", ["a[b]", "a*?", "a\\b"])
def test_folders_that_tensorflow_takes_for_patterns(run: Path, name: str) -> None:
    folder = run.rename(run.with_name(name))
    for path in (str(folder), f"{folder}/my-model-300"):
        assert document(path, fetch=["global_step"])["outputs"] == {"global_step:0": 300}
    assert document(str(folder), list=True)["problems"] == []


def test_the_best_of_a_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own graph, or with the one that is named; a trainer may find a better one."""
    for step, accuracy in {270: 0.1, 280: 0.9, 290: 0.9, 300: 0.5}.items():
        said = layout.read_manifest(str(run), step)
        assert said is not None
        content = layout.encode_manifest(said._replace(test_accuracy=accuracy))
        (run / f"my-model-{step}.manifest").write_bytes(content)
    best = f"{run}/my-model-280"
    for meta, graph in ((f"{run}", best), (f"{run}/my-model-300.meta", f"{run}/my-model-300")):
        found = document(meta, checkpoint=["best"], fetch=["global_step"])
        assert found["outputs"] == {"global_step:0": 280}
        assert (found["meta"], found["checkpoint"]) == (f"{graph}.meta", best)
    _delete_when_read(monkeypatch, [280])
    found = document(f"{run}", checkpoint=["best"], fetch=["global_step"])
    assert found["outputs"] == {"global_step:0": 290}


def test_where_the_newest_is_damaged_the_next_good_one_is_named(run: Path) -> None:
    flip_a_bit(run / "my-model-300.data-00000-of-00001")
    (run / "my-model-290.index").unlink()
    good = (
        rf"my-model-300\.data-\S+ is damaged: .*; the next that is good: {{}}={run}/my-model-280$"
    )
    with refused(good.format("--meta"), CheckpointError):
        document(str(run), fetch=["w:0"])
    with refused(good.format("--ckpt"), CheckpointError):
        document(f"{run}/my-model-270.meta", checkpoint=[str(run)], fetch=["w:0"])
    for named in (f"{run}/my-model-300", f"{run}/my-model-300.meta"):
        with refused("the manifest says 16 with .{11}$", CheckpointError):
            document(named, fetch=["w:0"])
    for step in (270, 280):
        (run / f"my-model-{step}.data-00000-of-00001").write_bytes(b"")
    with refused("the manifest says 16 with .{11}$", CheckpointError):
        document(str(run), fetch=["w:0"])


def test_the_tensor_that_is_damaged_is_named_and_a_strangers_next_one_too(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        with stock.checkpoint(tmp_path / f"m.v1-acc0.9-{step}"):
            w = v1.get_variable("layer/w", initializer=[1.0, step], use_resource=False)
            v1.add_to_collection("predict", w * 2)
    for step in (10, 11):
        flip_a_bit(tmp_path / f"m.v1-acc0.9-{step}.data-00000-of-00001")
    line = rf"-11 is damaged: layer/w: Checksum .*; the next that is good: --meta={tmp_path}/m.*-9$"
    with refused(line, CheckpointError):
        document(str(tmp_path))
    with refused("has no tensor 'z'; [^;]*$", CheckpointError):
        document(str(tmp_path), fetch=["z"])  # That is nothing of the files.


def test_values_of_two_checkpoints_and_tags_in_every_command(tmp_path: Path) -> None:
    """The first checkpoint is the one that is told of."""
    x, (g, c) = {"feed": ["x=[2]"]}, (f"{tmp_path}/g", f"{tmp_path}/c")
    for name in ("c", "g"):
        with stock.checkpoint(Path(tmp_path / name), var_list=(names := dict[str, Any]())):
            taken = v1.placeholder(tf.float32, [1], name="x")
            for each in ("g", "c"):
                w = v1.get_variable(each, initializer=3.0, use_resource=False)
                taken = tf.multiply(taken, w, name="y" if each == "c" else None)
                names |= {each: w} if each == name else {}
            v1.add_to_collection("predict", taken)
    found = document(f"{g}.meta", checkpoint=[g, c], **x)
    assert (found["outputs"], found["checkpoint"]) == ({"y:0": [18]}, g)
    frozen = FreezeConfig(f"{g}.meta", checkpoint=[g, c], output=f"{tmp_path}/f.pb")
    assert freeze_to_file(frozen)["largest_difference"] == 0
    assert document(f"{tmp_path}/f.pb", **x)["outputs"] == {"y:0": [18]}


# What --list says.


def _listing(meta: MetaGraphFile, signature: str | None = None) -> Record:
    return listing(meta, read_model(meta, signature))


def test_a_graph_without_placeholders_lists_what_stands_for_its_pipeline() -> None:
    def build() -> None:
        data = v1.data.Dataset.from_tensor_slices((np.ones((8, 3), np.float32), np.zeros(8)))
        x, _ = v1.data.make_initializable_iterator(data.batch(2)).get_next()
        tf.nn.softmax(tf.matmul(x, tf.ones([3, 2])), name="probabilities")

    assert listing_text(_listing(of_graph(build))).splitlines()[:8] == [
        "inputs",
        "  (none)",
        "to feed in place of the input pipeline",
        "  IteratorGetNext:0  float32 [?, 3]",
        "outputs",
        "  (none)",
        "possible outputs",
        "  probabilities:0  float32 [?, 2]",
    ]


def test_damage_is_listed_around() -> None:
    def build() -> None:
        v1.placeholder_with_default([1.0, 2.0], [2], name="x")
        v1.placeholder_with_default([1.0], [1], name="z")
        v1.get_variable("v", [2], use_resource=False)

    proto = of_graph(build).proto
    nodes = {node.name: node for node in proto.graph_def.node}
    nodes["v"].attr["dtype"].type = 999
    nodes["v"].attr["shape"].shape.dim[0].size = -7
    nodes["x/input"].attr["value"].tensor.tensor_shape.dim[0].size = -(10**12)
    nodes["z/input"].attr["value"].tensor.dtype = 999
    proto.collection_def["trainops"].node_list.value.extend(["Adam", "", "^"])
    proto.collection_def["predict"].node_list.value.extend(["nowhere:0", "x:7", "odd:0"])
    proto.collection_def["empty"].SetInParent()
    proto.signature_def["serving_default"].outputs["y"].name = "^v"
    proto.graph_def.node.add(name="odd", op="FromAnotherWorld")
    proto.graph_def.node.add(name="p", op="Placeholder").attr["dtype"].type = 999
    huge = proto.graph_def.node.add(name="q", op="Placeholder")
    huge.attr["dtype"].type = tf.float32.as_datatype_enum
    for _ in range(2):
        huge.attr["shape"].shape.dim.add(size=1 << 62)
    content = _listing(of_proto(proto))
    assert content["variables"] == [{"name": "v:0", "dtype": None, "shape": (None,)}]
    assert [record["name"] for record in content["inputs"]] == ["p:0", "q:0", "x:0", "z:0"]
    assert content["inputs"][1] == {"name": "q:0", "dtype": None, "shape": None}
    assert not any("default" in record for record in content["inputs"])
    assert content["outputs"] == [
        {"name": name, "dtype": None, "shape": None} for name in ("x:7", "odd:0")
    ]
    assert content["collections"]["trainops"] == ["Adam", "", "^"]
    assert "  odd:0  unknown here" in listing_text(content)
    json.loads(json.dumps(content))


def test_signatures_to_choose_from(tmp_path: Path) -> None:
    path = saved(tmp_path, lambda: v1.placeholder(tf.float32, [None], name="x") + 2.0).path
    signature = ({"x": "x:0"}, {"sum": "add:0"})
    stock.sign(Path(path), b=signature, a=signature)
    meta = read_meta_graph(path)
    content, chosen = _listing(meta), _listing(meta, "b")
    assert (content["signatures"], content["signature"]["name"]) == (["a", "b"], "")
    text = listing_text(content)
    assert "signature\nsignatures, to choose from with --signature\n  a\n  b\n" in text
    expected = {"name": "b", "inputs": {"x": "x:0"}, "outputs": {"sum": "add:0"}}
    assert chosen["signature"] == expected
    named = "signature b\n  input x = x:0\n  output sum = add:0\n"
    assert f"{named}other signatures, for --signature\n  a\n" in listing_text(chosen)


def test_a_part_of_many_lines_is_shortened(
    classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction.output._MAX_SHOWN_LINES", 2)
    content = _listing(read_meta_graph(classifier))
    text = listing_text(content)
    shown = "  x:0  float32 [?, 4, 4, 3]\n  y_:0  int64 [?]\n"
    assert f"inputs\n{shown}  ... and 1 more (--format=json has all)\noutputs\n" in text
    more = len(content["collections"]) - 2
    assert text.endswith(f"\n  ... and {more} more (--format=json has all)")
    assert len(content["inputs"]) == 3
