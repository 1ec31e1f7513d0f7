"""One checkpoint: every tensor is read, damage is told by name; nothing of its graph runs."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from tests.prediction import stock
from tools.folder_entries import named_entry
from tools.verify_checkpoint import Findings, GraphChecks, read_all, verify_entry

v1 = tf.compat.v1


def _check(prefix: Path, graphs: GraphChecks) -> Findings:
    return verify_entry(named_entry(str(prefix)), graphs).findings


def _variable(name: str, size: int) -> tf.Variable:
    return v1.get_variable(name, initializer=[0.0] * size, use_resource=False)


def test_variables_that_the_saver_leaves_out_are_remarked_on(
    tmp_path: Path, graphs: GraphChecks
) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        kept, _ = _variable("kept", 1), _variable("dropped", 2)
        saver = v1.train.Saver([kept])
        session.run(v1.global_variables_initializer())
        saver.save(session, f"{tmp_path}/m")
    found = _check(tmp_path / "m", graphs)
    assert found.problems == []
    assert [line for line in found.remarks if "dropped is missing" in line]


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ({"a": 1, "b": 1}, []),
        ({"a": 1}, ["b is missing"]),
        ({"a": 2, "b": 1}, ["a is float32 [2], the graph has float32 [1]"]),
    ],
)
def test_what_the_saver_saves_has_to_be_there(
    held: dict[str, int], problem: list[str], tmp_path: Path, graphs: GraphChecks
) -> None:
    for name, sizes in (("graph", {"a": 1, "b": 1}), ("held", held)):
        with stock.checkpoint(tmp_path / name):
            for variable, size in sizes.items():
                _variable(variable, size)
    (tmp_path / "held.meta").write_bytes((tmp_path / "graph.meta").read_bytes())
    assert _check(tmp_path / "held", graphs).problems == problem


def test_a_graph_without_a_saver_needs_all_but_its_local_variables(
    tmp_path: Path, graphs: GraphChecks
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _variable("a", 1)
        v1.get_variable("counted", initializer=[0.0], collections=["local_variables"])
        graph = v1.get_default_graph()
        alone = v1.train.export_meta_graph(graph=graph)
    (tmp_path / "m.meta").write_bytes(alone.SerializeToString())
    found = _check(tmp_path / "m", graphs)
    assert found.problems == []
    assert [line for line in found.remarks if "counted is missing" in line]


def _rename_op(meta: MetaGraphDef) -> None:
    for node in meta.graph_def.node:
        if node.name == "y":
            node.op = "NobodyHasThis"


def test_an_operation_that_is_not_here_cannot_be_imported(
    tmp_path: Path, graphs: GraphChecks
) -> None:
    with stock.checkpoint(tmp_path / "m"):
        tf.square(_variable("a", 1), name="y")
    stock.edit_meta(tmp_path / "m.meta", _rename_op)
    (problem,) = _check(tmp_path / "m", graphs).problems
    assert problem.startswith("its graph cannot be imported")
    assert "NobodyHasThis" in problem


def test_what_may_do_more_than_compute_is_remarked_on_and_not_run(
    tmp_path: Path, graphs: GraphChecks
) -> None:
    target = tmp_path / "written"
    with stock.checkpoint(tmp_path / "m"):
        _variable("a", 1)
        tf.io.write_file(str(target), "x")
        tf.raw_ops.DebugIdentity(input=[1.0], debug_urls=[f"file://{tmp_path}/debug"])
    found = _check(tmp_path / "m", graphs)
    assert found.problems == []
    (line,) = (line for line in found.remarks if "--trust_graph" in line)
    assert "the 2 nodes of the operations DebugIdentity, WriteFile" in line
    assert not target.exists()
    assert not (tmp_path / "debug").exists()


def test_without_a_meta_only_the_values_are_looked_at(tmp_path: Path, graphs: GraphChecks) -> None:
    with stock.checkpoint(tmp_path / "m"):
        _variable("a", 1)
    (tmp_path / "m.meta").unlink()
    found = _check(tmp_path / "m", graphs)
    assert found.problems == []
    assert "it has no .meta: only its values could be looked at" in found.remarks


def test_an_equal_graph_is_imported_once(
    ours: Path, graphs: GraphChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = []
    monkeypatch.setattr(
        "tools.verify_checkpoint.import_disarmed", lambda meta, _: imported.append(meta.path)
    )
    for step in (270, 280, 290):
        assert _check(ours / f"my-model-{step}", graphs).problems == []
    assert imported == [f"{ours}/my-model-270.meta"]


def _several(path: Path, **saver_options: object) -> str:
    with stock.checkpoint(path / "m", **saver_options):
        v1.get_variable("a", initializer=np.arange(1000.0), use_resource=False)
        v1.get_variable("b", initializer=np.arange(6).reshape(2, 3), use_resource=False)
        v1.get_variable("words", initializer=["x", "yy"], use_resource=False)
    return f"{path}/m"


@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
@pytest.mark.parametrize("sharded", [False, True])
def test_it_counts_what_it_reads(version: int, sharded: bool, tmp_path: Path) -> None:
    found = read_all(_several(tmp_path, write_version=version, sharded=sharded))
    assert (found.tensors, found.problems, found.step) == (3, [], None)
    assert found.value_bytes == 1000 * 8 + 6 * 8


def test_one_damaged_tensor_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    prefix = _several(tmp_path)
    data = tmp_path / "m.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    found = read_all(prefix)
    assert found.tensors == 3
    (line,) = found.problems
    assert line.startswith("1 of its 3 tensors cannot be read: a: ")
    assert "hecksum" in line
