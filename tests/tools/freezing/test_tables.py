"""Lookup tables keep what fills them, whatever that was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.tools.conftest import Tool
from tests.tools.freezing import models

v1 = tf.compat.v1
lookup = tf.lookup


def _saved(folder: Path, words: Path | None) -> str:
    def build() -> None:
        index = lookup.TextFileIndex
        kinds = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        if words:
            filled: Any = lookup.TextFileInitializer(str(words), *kinds)
        else:
            numbers = tf.constant([3, 5], tf.int64)
            filled = lookup.KeyValueTensorInitializer(["cat", "dog"], numbers)
        table = lookup.StaticHashTable(filled, -1)
        v1.get_variable("w", initializer=1.0, use_resource=False)
        tf.identity(table.lookup(v1.placeholder(tf.string, [None], name="words")), name="ids")

    return models.save(folder, build)


@pytest.mark.parametrize("from_file", [False, True], ids=["constants", "vocabulary"])
def test_it_is_filled(tool: Tool, tmp_path: Path, from_file: bool) -> None:
    """A stock client has to run what the report names; predict.py does so by itself."""
    words, file = tmp_path / "words.txt", tmp_path / "m.pb"
    words.write_text("a\nb\nc\ncat\nd\ndog\n")
    meta = _saved(tmp_path, words if from_file else None)
    arguments = ["--outputs=ids", f"--output={file}"]
    moved = words.rename(tmp_path / "moved.txt")
    if from_file:
        assert "--asset words.txt=<path>" in tool("freeze", meta, *arguments).err
        arguments.append(f"--asset=words.txt={moved}")
    ended = tool("freeze", meta, *arguments)
    assert ended.code == 0, ended.err
    moved.unlink()
    run_first = [line.split()[1] for line in ended.out.splitlines() if line.startswith("  table")]
    assert run_first
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(GraphDef.FromString(file.read_bytes()), name="")
        session.run(run_first)
        asked = np.array(["dog", "cat", "?"], object)
        assert session.run("ids:0", {"words:0": asked}).tolist() == [5, 3, -1]
    text = predict(PredictConfig(str(file), feed=['words=["dog", "cat", "?"]'], format="json"))
    assert '"ids:0": [5, 3, -1]' in text
