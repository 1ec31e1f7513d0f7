"""What only an optimizer needs, against what the optimizers of TensorFlow say of themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import CheckpointReader
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.slots import slot_names
from tests.test_thirdparty import THIRD_PARTY

v1 = tf.compat.v1

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
OPTIMIZERS = {
    "descent": lambda **name: v1.train.GradientDescentOptimizer(0.1, **name),
    "momentum": lambda **name: v1.train.MomentumOptimizer(0.1, 0.9, **name),
    "adam": lambda **name: v1.train.AdamOptimizer(0.1, **name),
    "rmsprop": lambda **name: v1.train.RMSPropOptimizer(0.1, momentum=0.9, centered=True, **name),
    "adagrad": lambda **name: v1.train.AdagradOptimizer(0.1, **name),
    "adadelta": lambda **name: v1.train.AdadeltaOptimizer(0.1, **name),
    "ftrl": lambda **name: v1.train.FtrlOptimizer(0.1, **name),
    "dual": lambda **name: v1.train.AdagradDAOptimizer(0.1, v1.train.get_global_step(), **name),
    "proximal": lambda **name: v1.train.ProximalAdagradOptimizer(0.1, **name),
}
EVERY = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
KINDS = pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])


def _network(resource: bool) -> tf.Tensor:
    """A loss over a dense and a sparse variable, with a moving average and a batch's mean."""
    with v1.variable_scope("net", use_resource=resource):
        weights = v1.get_variable("w", [3, 2])
        table = v1.get_variable("table", [5, 3])
        mean = v1.get_variable("BatchNorm/moving_mean", [2], trainable=False)
        rate = v1.get_variable("rate", [], trainable=False)
    v1.train.get_or_create_global_step()
    v1.train.ExponentialMovingAverage(0.9).apply([weights])
    rows = tf.gather(table, [1, 2])
    return tf.reduce_sum(tf.matmul(rows, weights) - mean) * rate


def _meta(graph: tf.Graph) -> MetaGraphFile:
    with graph.as_default():
        v1.train.Saver()
        proto: MetaGraphDef = v1.train.export_meta_graph()
    return MetaGraphFile("m.meta", "m", proto)


def _trained(
    make: Callable[..., Any], resource: bool, scope: str = "", **name: str
) -> tuple[MetaGraphFile, set[str], set[str]]:
    """A graph that trains, all of its variables, and those that the optimizer says are its own."""
    with tf.Graph().as_default() as graph:
        loss = _network(resource)
        with v1.variable_scope(scope) if scope else graph.name_scope(""):
            optimizer = make(**name)
            optimizer.minimize(loss, v1.train.get_global_step())
        keys = {variable.op.name for variable in v1.global_variables()}
        return _meta(graph), keys, {variable.op.name for variable in optimizer.variables()}


@EVERY
@KINDS
@pytest.mark.parametrize("with_graph", [True, False], ids=["graph", "names"])
def test_as_the_optimizer_says(make: Callable[..., Any], resource: bool, with_graph: bool) -> None:
    meta, keys, expected = _trained(make, resource)
    assert slot_names(keys, meta if with_graph else None) == expected


@KINDS
def test_the_graph_knows_slots_of_any_name(resource: bool) -> None:
    meta, keys, expected = _trained(OPTIMIZERS["adam"], resource, name="Nobody")
    assert "net/w/Nobody" in expected
    assert slot_names(keys, meta) == expected
    assert "net/w/Nobody" not in slot_names(keys)


def test_the_graph_goes_before_the_names() -> None:
    """A variable that is trained is no slot, whatever it is called."""
    with tf.Graph().as_default() as graph:
        v1.get_variable("w", [2])
        v1.get_variable("w/Adam", [2])
        meta = _meta(graph)
    assert slot_names(["w", "w/Adam"]) == {"w/Adam"}
    assert slot_names(["w", "w/Adam"], meta) == set()


def test_slots_that_the_saver_renames() -> None:
    with tf.Graph().as_default() as graph:
        loss = _network(resource=False)
        optimizer = OPTIMIZERS["adam"]()
        optimizer.minimize(loss)
        names = {f"v{i}": variable for i, variable in enumerate(v1.global_variables())}
        saver = v1.train.Saver(names)
        proto = v1.train.export_meta_graph(graph=graph, saver_def=saver.as_saver_def())
        own = {variable.op.name for variable in optimizer.variables()}
    expected = {key for key, variable in names.items() if variable.op.name in own}
    assert len(expected) == 6
    assert slot_names(names, MetaGraphFile("m.meta", "m", proto)) == expected


def test_slots_of_a_partitioned_variable() -> None:
    with tf.Graph().as_default() as graph:
        splits = v1.fixed_size_partitioner(2)
        w = v1.get_variable("w", [4, 3], partitioner=splits, use_resource=False)
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(tf.convert_to_tensor(w)))
        meta = _meta(graph)
    keys = {"w", "w/Adam", "w/Adam_1", "beta1_power", "beta2_power"}
    assert slot_names(keys, meta) == slot_names(keys) == keys - {"w"}


def test_within_a_loop_and_a_function() -> None:
    with tf.Graph().as_default() as graph:
        w = v1.get_variable("w", [2], use_resource=True)
        optimizer = v1.train.AdamOptimizer(name="Nobody")

        @tf.function  # type: ignore[untyped-decorator]
        def step() -> tf.Tensor:
            gradients = [(tf.ones([2]), w)]
            with tf.control_dependencies([optimizer.apply_gradients(gradients)]):
                return tf.constant(0)

        step()
        keys = {variable.op.name for variable in (w, *optimizer.variables())}
        meta = _meta(graph)
    assert not any("Apply" in node.op for node in meta.nodes.values())
    assert slot_names(keys, meta) == keys - {"w"}


@pytest.mark.parametrize("kind", ["keras", "v1"])
def test_object_based(kind: str, tmp_path: Path) -> None:
    variable = tf.Variable([1.0, 2.0])
    kinds = {"v1": v1.train.AdamOptimizer, "keras": tf.keras.optimizers.Adam}
    optimizer = kinds[kind](0.1)
    optimizer.apply_gradients([(tf.ones([2]), variable)])
    checkpoint = tf.train.Checkpoint(net=variable, optimizer=optimizer)
    prefix = checkpoint.save(str(tmp_path / "c"))
    keys = CheckpointReader(prefix).shapes.keys()
    assert len(keys) > 6
    assert keys - slot_names(keys) == {
        f"net{VALUE}",
        f"save_counter{VALUE}",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("training/Adam/w/m", True),
        ("training/Adam/w/vhat", True),
        ("training/Net/w/m", False),  # No optimizer's scope.
        ("Adam/iter", True),
        ("training/RMSprop/Variable_3", True),
        ("net/iter", False),
        ("w/adam_m", True),
        ("w_slot_vr", True),
        ("u_slot_vr", False),  # There is no u.
        ("w/LAMB", True),
        ("w/lambda", False),
        ("w/ExponentialMovingAverage", False),
        ("w/biased", False),
        ("beta1_power_2", True),
        ("net/beta1_powers", False),
        ("adamant/w", False),
        ("momentum_net/kernel", False),
        ("w/.OPTIMIZER_SLOT/opt/m" + VALUE, True),
        ("opt/beta_1" + VALUE, True),
        ("optics/kernel" + VALUE, False),
        ("optimizer/_variables/2" + VALUE, True),
        ("optimizer/_trainable_variables/2" + VALUE, False),  # The model's, by Keras 3.
        ("_variables/0" + VALUE, False),
        ("a/" * 100_000 + "Adam", False),  # Nobody's; and it takes no time.
    ],
)
def test_other_names(key: str, expected: bool) -> None:
    assert (key in slot_names({"w", key})) == expected


def test_of_third_parties() -> None:
    if not THIRD_PARTY.is_dir():
        pytest.skip("needs the checkpoints of public projects at ../shared/thirdparty")
    counts = {}
    for path in sorted(THIRD_PARTY.rglob("*.meta")):
        meta = read_meta_graph(str(path))
        keys = CheckpointReader(meta.prefix).shapes.keys()
        found = slot_names(keys, meta)
        assert found == slot_names(keys)  # Their names tell as much as their graphs.
        counts[path.stem] = (len(found), len(keys))
    assert counts == {
        "PNet-18": (15, 31),
        "RNet-14": (17, 35),
        "checkpoint--1": (58, 86),
        "t044_s09.ckpt": (46, 72),
        "model.ckpt-4": (26, 38),
        "model": (0, 2),
        "export": (0, 2),
    }
