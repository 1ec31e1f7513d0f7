"""python -m tools.inspect_graph as a user calls it."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from metagraph.meta import MetaGraphFile
from metagraph.opening import parse_graph_file
from tests.metagraph.made import of_graph
from tests.prediction.conftest import outputs
from tests.test_thirdparty import every_entry
from tests.tools.conftest import Tool, document

v1 = tf.compat.v1
NAME = "inspect_graph"


def _file(tmp_path: Path, meta: MetaGraphFile) -> Path:
    path = tmp_path / "a.meta"
    path.write_bytes(meta.proto.SerializeToString())
    return path


@every_entry
def test_models_of_others(
    entry: dict[str, Any], third_party: Path, tool: Tool, tmp_path: Path
) -> None:
    meta = third_party / entry["meta"]
    fetch = f"--fetch={entry['suggested_output']}"
    assert [*document(tool, NAME, meta, fetch, f"--dot={tmp_path}/a.dot")] == ["written"]
    found = document(tool, NAME, meta, fetch)
    assert found["safety"]["inference"]["passes"]
    assert not found["safety"]["whole"]["passes"]  # Their savers write files.
    assert found["cost"]["problem"] == ""
    inputs = {tensor["name"] for tensor in entry["inputs"]}
    given = {tensor["name"] for key in ("inputs", "pipeline") for tensor in found["graph"][key]}
    assert inputs <= given
    version = found["info"]["tensorflow_version"]
    assert version == entry["tf_version"] or entry["tf_version"].startswith("(none")
    output = document(tool, NAME, meta, fetch.replace("fetch", "node"))["node"]["outputs"][0]
    known = [size for size in output["shape"] or [] if size is not None]
    assert set(known) <= set(entry["out_shape"])
    assert tool(NAME, meta).code == 0


def test_as_text_it_is_the_same_and_predict_reads_it(
    cnn_run: Path, tool: Tool, tmp_path: Path
) -> None:
    text, meta = tmp_path / "graph.pbtxt", cnn_run / "my-model-200.meta"
    ended = tool(NAME, cnn_run, f"--as_text={text}")
    assert ended.out.startswith(f"wrote {text}, ")
    ours = text_format.Parse(text.read_text(), MetaGraphDef())
    assert ours == MetaGraphDef.FromString(meta.read_bytes())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 32, 32, 3), np.float32))
    given = {"checkpoint": [f"{cnn_run}/my-model-200"], "feed": [f"x={tmp_path}/x.npy"]}
    ours, theirs = (outputs(tmp_path, str(path), "fc2/add", **given)[0] for path in (text, meta))
    assert ours.tobytes() == theirs.tobytes()


def test_large_constants_and_odd_texts_stay_whole(tool: Tool, tmp_path: Path) -> None:
    def build() -> None:
        tf.constant(np.random.default_rng(0).standard_normal(100_000).astype(np.float32), name="c")
        tf.constant([b'\x00\xff"\n\\', b"text"], name="s")
        tf.constant(np.array([np.nan, -np.inf, 1e-45], np.float32), name="few")

    meta, target = of_graph(build), tmp_path / "odd.pbtxt"
    assert tool(NAME, _file(tmp_path, meta), f"--as_text={target}").code == 0
    again = parse_graph_file(target.read_bytes(), str(target))
    ours, theirs = (p.SerializeToString(deterministic=True) for p in (again, meta.proto))
    assert ours == theirs


def test_a_name_over_lines_forges_none(tool: Tool, tmp_path: Path) -> None:
    meta = of_graph(lambda: v1.placeholder(tf.float32, [2], "x"))
    meta.proto.collection_def["a\nsafety: b"].node_list.value.append("x\n  passes")
    meta.proto.signature_def["c\nd"].inputs["e\nf"].name = "x:0"
    ended = tool(NAME, _file(tmp_path, meta), "--part=collections,signatures")
    assert ended.out.splitlines() == [
        "collections (1)",
        r"  a\nsafety: b = x\n  passes",
        "signatures (1)",
        r"  c\nd",
        r"    input e\nf = x:0",
    ]


def test_a_hostile_name_stays_text(tool: Tool, tmp_path: Path) -> None:
    """A terminal's commands in a text of a collection and of a constant."""
    meta = of_graph(lambda: tf.constant(b"\x1b[2J", name="c"))
    meta.proto.collection_def["texts\x1b]"].bytes_list.value.append(b"\x1b[31m")
    path = _file(tmp_path, meta)
    for arguments in ([], ["--node=c"], ["--format=json"], ["--node=c", "--format=json"]):
        ended = tool(NAME, path, *arguments)
        assert ended.code == 0
        assert "\x1b" not in ended.out
