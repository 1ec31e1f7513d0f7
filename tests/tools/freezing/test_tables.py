"""Lookup tables keep what fills them, whatever that was."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.tools.conftest import Tool
from tests.tools.freezing import models

v1 = tf.compat.v1
lookup = tf.lookup


def _look_up(initializer: Any) -> None:
    table = lookup.StaticHashTable(initializer, -1)
    v1.get_variable("w", initializer=1.0, use_resource=False)
    tf.identity(table.lookup(v1.placeholder(tf.string, [None], name="words")), name="ids")


def _check(file: Path, out: str) -> None:
    """A stock client has to run what the report names; predict.py does so by itself."""
    run_first = [line.split()[1] for line in out.splitlines() if line.startswith("  table")]
    assert run_first
    words = np.array(["dog", "cat", "?"], object)
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(GraphDef.FromString(file.read_bytes()), name="")
        session.run(run_first)
        assert session.run("ids:0", {"words:0": words}).tolist() == [5, 3, -1]
    text = predict(PredictConfig(str(file), feed=['words=["dog", "cat", "?"]'], format="json"))
    assert '"ids:0": [5, 3, -1]' in text


def test_constants_stay(tool: Tool, tmp_path: Path) -> None:
    def build() -> None:
        _look_up(lookup.KeyValueTensorInitializer(["cat", "dog"], tf.constant([3, 5], tf.int64)))

    file = tmp_path / "m.pb"
    ended = tool("freeze", models.save(tmp_path, build), "--outputs=ids", f"--output={file}")
    assert ended.code == 0, ended.err
    _check(file, ended.out)


def test_a_vocabulary_file_becomes_constants(tool: Tool, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\nc\ncat\nd\ndog\n")

    def build() -> None:
        index = lookup.TextFileIndex
        kinds = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        _look_up(lookup.TextFileInitializer(str(words), *kinds))

    meta, file = models.save(tmp_path, build), tmp_path / "m.pb"
    moved = words.rename(tmp_path / "moved.txt")
    ended = tool("freeze", meta, "--outputs=ids", f"--output={file}")
    assert ended.code == 1
    assert "--asset words.txt=<path>" in ended.err
    asset = f"--asset=words.txt={moved}"
    ended = tool("freeze", meta, "--outputs=ids", f"--output={file}", asset)
    assert ended.code == 0, ended.err
    moved.unlink()
    _check(file, ended.out)
