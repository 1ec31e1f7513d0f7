"""The bytes of a graph, written node by node."""

from pathlib import Path

import pytest
import tensorflow as tf

from tools.common.errors import ToolError
from tools.freezing.graph_writer import write_graph


def test_they_are_those_of_the_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        for size in (0, 1, 31, 32, 5000, 600_000):  # Lengths of one byte, two, three and more.
            tf.constant(b"a" * size)
        tf.function(lambda y: y + 1)(x)
    graph_def = graph.as_graph_def()
    path = tmp_path / "deep" / "g.pb"
    size = write_graph(graph_def, str(path))
    assert path.stat().st_size == size
    assert path.read_bytes() == graph_def.SerializeToString(deterministic=True)
    assert [file.name for file in path.parent.iterdir()] == ["g.pb"]


def test_what_is_there_stays_where_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(b"old")

    def refuse(name: str) -> None:
        raise OSError(28, "No space left on device", name)

    monkeypatch.setattr("tools.freezing.graph_writer.flush", refuse)
    with pytest.raises(ToolError, match=r"g\.pb cannot be written: .*No space left"):
        write_graph(tf.compat.v1.GraphDef(), str(path))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("g.pb", b"old")]
