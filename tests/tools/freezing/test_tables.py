"""Lookup tables keep what fills them, whatever that was."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.tools.conftest import Tool
from tests.tools.freezing import models

v1 = tf.compat.v1


def _by_constants() -> None:
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["cat", "dog"], tf.constant([3, 5], tf.int64)), -1
    )
    _look_up(table)


def _look_up(table: tf.lookup.StaticHashTable) -> None:
    v1.get_variable("w", initializer=1.0, use_resource=False)
    tf.identity(table.lookup(v1.placeholder(tf.string, [None], name="words")), name="ids")


def _check(file: Path, run_first: list[str]) -> None:
    words = np.array(["dog", "cat", "?"], object)
    graph = GraphDef.FromString(file.read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph, name="")
        session.run(run_first)
        assert session.run("ids:0", {"words:0": words}).tolist() == [5, 3, -1]
    text = predict(PredictConfig(str(file), feed=['words=["dog", "cat", "?"]'], format="json"))
    assert '"ids:0": [5, 3, -1]' in text


def _initializers(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines() if line.startswith("  table")]


def test_constants_stay(tool: Tool, tmp_path: Path) -> None:
    meta = models.save(tmp_path, _by_constants)
    file = tmp_path / "m.pb"
    ended = tool("freeze", meta, "--outputs=ids", f"--output={file}")
    assert ended.code == 0, ended.err
    assert _initializers(ended.out)
    _check(file, _initializers(ended.out))


def test_a_vocabulary_file_becomes_constants(tool: Tool, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\nc\ncat\nd\ndog\n")

    def build() -> None:
        _look_up(
            tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(words),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                -1,
            )
        )

    meta, file = models.save(tmp_path, build), tmp_path / "m.pb"
    moved = words.rename(tmp_path / "moved.txt")
    ended = tool("freeze", meta, "--outputs=ids", f"--output={file}")
    assert ended.code == 1
    assert "--asset words.txt=<path>" in ended.err
    asset = f"--asset=words.txt={moved}"
    ended = tool("freeze", meta, "--outputs=ids", f"--output={file}", asset)
    assert ended.code == 0, ended.err
    moved.unlink()
    _check(file, _initializers(ended.out))
