"""New names wherever the old ones stand: a stock client imports what has been renamed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.control_flow_pb2 import CondContextDef, WhileContextDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.queue_runner_pb2 import QueueRunnerDef
from tensorflow.core.protobuf.saver_pb2 import SaverDef

from tests.prediction import stock
from tools.edit_names import Names, drop_lost, rename

v1 = tf.compat.v1


KINDS: dict[str, Any] = {
    "variables": VariableDef,
    "while_context": WhileContextDef,
    "cond_context": CondContextDef,
    "queue_runners": QueueRunnerDef,
    "savers": SaverDef,
}


def _parsed(proto: MetaGraphDef) -> tuple[MetaGraphDef, dict[str, list[Any]]]:
    """A copy to compare, with what has maps in it parsed: their order in bytes means nothing."""
    copy = MetaGraphDef.FromString(proto.SerializeToString())
    entries = {}
    for key in KINDS.keys() & copy.collection_def.keys():
        contents = copy.collection_def.pop(key).bytes_list.value
        entries[key] = [KINDS[key].FromString(content) for content in contents]
    return copy, entries


def _made(build: Callable[[], object], folder: Path) -> MetaGraphDef:
    with stock.checkpoint(folder / "model"):
        build()
    return MetaGraphDef.FromString((folder / "model.meta").read_bytes())


def _moved(proto: MetaGraphDef, scope: str = "net/") -> Names:
    """All names under a scope."""
    nodes = {node.name: f"{scope}{node.name}" for node in proto.graph_def.node}
    return Names(nodes, {"w": f"{scope}w"})


def _back(proto: MetaGraphDef, scope: str = "net/") -> Names:
    nodes = {node.name: node.name.removeprefix(scope) for node in proto.graph_def.node}
    return Names(nodes, {f"{scope}w": "w"})


def _variable(control_flow: str) -> None:
    """A model of a variable, a loop, a conditional and a queue; functions in its form 2."""
    x = v1.placeholder(tf.float32, [None], "x")
    w = v1.get_variable("w", initializer=2.0, use_resource=control_flow == "v2")
    queue = tf.queue.FIFOQueue(3, [tf.float32], [[]], name="queue")
    v1.train.add_queue_runner(v1.train.QueueRunner(queue, [queue.enqueue(w)]))
    _, looped = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * w), [0, x])
    y = v1.cond(tf.reduce_sum(looped) > 0, lambda: looped + w, lambda: looped - w)
    y = tf.identity(y, "y")
    v1.add_to_collection("predict", y)
    v1.add_to_collection("texts", b"w")
    v1.add_to_collection("numbers", 7)
    v1.add_to_collection(v1.GraphKeys.SAVERS, v1.train.Saver())


@pytest.fixture(params=["v1", "v2"])
def build(request: pytest.FixtureRequest) -> Callable[[], object]:
    def make() -> None:
        switch = v1.enable_control_flow_v2 if request.param == "v2" else v1.disable_control_flow_v2
        was = v1.control_flow_v2_enabled()
        switch()
        try:
            _variable(request.param)
        finally:
            (v1.enable_control_flow_v2 if was else v1.disable_control_flow_v2)()

    return make


def test_a_stock_client_runs_what_was_renamed(build: Callable[[], object], tmp_path: Path) -> None:
    proto = _made(build, tmp_path)
    rename(proto, _moved(proto))
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(proto)
        assert {op.name.partition("/")[0] for op in graph.get_operations()} == {"net"}
        (variable,) = v1.trainable_variables()
        assert variable.name == "net/w:0"
        variable.initializer.run(session=session)
        rows = np.array([1, -2, 4], np.float32)
        found = session.run("net/y:0", {"net/x:0": rows})
        np.testing.assert_array_equal(found, rows * 8 + 2)
        saved = tf.train.load_checkpoint(saver.save(session, f"{tmp_path}/new"))
        assert saved.get_variable_to_shape_map() == {"net/w": []}
        if "while_context" not in proto.collection_def:
            return
        gradient = tf.gradients(v1.get_collection("predict")[0], variable)[0]  # By the contexts.
        assert session.run(gradient, {"net/x:0": rows}).size


def test_nothing_names_an_old_node_any_more(build: Callable[[], object], tmp_path: Path) -> None:
    proto = _made(build, tmp_path)
    old = {node.name for node in proto.graph_def.node}
    rename(proto, _moved(proto))
    for node in proto.graph_def.node:
        assert not {text.strip("^").partition(":")[0] for text in node.input} & old
        assert not {text.decode() for text in node.attr["_class"].list.s} & {
            f"loc:@{name}" for name in old
        }
    for key, kind in KINDS.items():
        for content in proto.collection_def[key].bytes_list.value:
            lines = str(kind.FromString(content)).splitlines()
            texts = {line.split('"')[1].partition(":")[0] for line in lines if '"' in line}
            assert texts
            assert not {t for t in texts & old if f'context_name: "{t}"' not in str(lines)}
    assert list(proto.collection_def["texts"].bytes_list.value) == [b"w"]
    assert list(proto.collection_def["numbers"].int64_list.value) == [7]


def test_there_and_back_gives_the_same_graph(build: Callable[[], object], tmp_path: Path) -> None:
    proto = _made(build, tmp_path)
    before = _parsed(proto)
    rename(proto, _moved(proto))
    assert _parsed(proto) != before
    rename(proto, _back(proto))
    assert _parsed(proto) == before


def test_functions_keep_their_own_names(tmp_path: Path) -> None:
    """`w` is a node of the graph, and one of the function, which takes it as an argument."""

    def build() -> None:
        w = v1.get_variable("w", initializer=2.0, use_resource=True)

        def twice(value: tf.Tensor) -> tf.Tensor:
            inner = tf.identity(value, name="w")
            with v1.colocate_with(inner):
                return tf.add(inner, inner, name="sum")

        tf.identity(tf.function(twice)(w.read_value()), name="y")

    proto = _made(build, tmp_path)
    library = proto.graph_def.library.SerializeToString(deterministic=True)
    rename(proto, _moved(proto))
    assert proto.graph_def.library.SerializeToString(deterministic=True) == library


def test_signatures_assets_and_shared_names_follow(tmp_path: Path) -> None:
    def build() -> None:
        w = v1.get_variable("w", initializer=2.0, use_resource=True)
        v1.get_variable("v", initializer=1.0, use_resource=True)
        tf.multiply(v1.placeholder(tf.float32, [], "x"), w, name="y")

    proto = _made(build, tmp_path)
    (tensor,) = (node.name for node in proto.graph_def.node if node.name == "y")
    signature = proto.signature_def["serving_default"]
    signature.inputs["x"].name, signature.outputs["w"].name = "x:0", f"{tensor}:0"
    signature.method_name = "y"
    proto.asset_file_def.add(filename="w").tensor_info.name = "y:0"
    rename(proto, Names({n.name: f"a{n.name}" for n in proto.graph_def.node}, {"w": "aw"}))
    assert {key: info.name for key, info in signature.inputs.items()} == {"x": "ax:0"}
    assert {key: info.name for key, info in signature.outputs.items()} == {"w": "ay:0"}
    assert signature.method_name == "y"
    assert proto.asset_file_def[0].filename == "w"
    assert proto.asset_file_def[0].tensor_info.name == "ay:0"
    shared = {n.name: n.attr["shared_name"].s for n in proto.graph_def.node if "Handle" in n.op}
    assert shared == {"aw": b"aw", "av": b"av"}


def test_what_names_a_lost_node_is_gone_and_all_else_stays(
    build: Callable[[], object], tmp_path: Path
) -> None:
    proto = _made(build, tmp_path)
    proto.collection_def["trainops"].node_list.value[:] = ["Adam"]  # As tflearn has it.
    proto.signature_def["kept"].outputs["y"].name = "x:0"
    proto.signature_def["gone"].outputs["y"].name = "y:0"
    names = {node.name for node in proto.graph_def.node}
    gone = names - {"x"}
    del proto.graph_def.node[:]
    drop_lost(proto, gone)
    assert {*proto.collection_def} == {"trainops", "texts", "numbers"}
    assert {*proto.signature_def} == {"kept"}
    assert not proto.graph_def.library.function
