"""What only an optimizer needs, against what the optimizers of TensorFlow say of themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from checkpoints.reader import CheckpointReader
from metagraph.meta import read_meta_graph
from metagraph.variables import slot_names
from tests.metagraph.made import of_graph, of_proto
from tests.test_thirdparty import THIRD_PARTY

v1 = tf.compat.v1

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
OPTIMIZERS = {
    "descent": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "adam": lambda: v1.train.AdamOptimizer(0.1),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.1, momentum=0.9, centered=True),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "adadelta": lambda: v1.train.AdadeltaOptimizer(0.1),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1),
    "dual": lambda: v1.train.AdagradDAOptimizer(0.1, v1.train.get_global_step()),
    "proximal": lambda: v1.train.ProximalAdagradOptimizer(0.1),
}


def _train(make: Callable[[], Any], resource: bool = False) -> tuple[set[str], set[str]]:
    """Builds a dense and a sparse variable, a moving average and a batch's mean, and trains them.

    Returns:
      All variables, and those that the optimizer says are its own.
    """
    with v1.variable_scope("net", use_resource=resource):
        weights = v1.get_variable("w", [3, 2])
        table = v1.get_variable("table", [5, 3])
        mean = v1.get_variable("BatchNorm/moving_mean", [2], trainable=False)
        rate = v1.get_variable("rate", [], trainable=False)
    v1.train.get_or_create_global_step()
    v1.train.ExponentialMovingAverage(0.9).apply([weights])
    rows = tf.gather(table, [1, 2])
    loss = tf.reduce_sum(tf.matmul(rows, weights) - mean) * rate
    optimizer = make()
    optimizer.minimize(loss, v1.train.get_global_step())
    keys = {variable.op.name for variable in v1.global_variables()}
    return keys, {variable.op.name for variable in optimizer.variables()}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_as_the_optimizer_says(make: Callable[[], Any], resource: bool) -> None:
    with tf.Graph().as_default() as graph:
        keys, expected = _train(make, resource)
        v1.train.Saver()
        meta = of_proto(v1.train.export_meta_graph(graph=graph))
    assert slot_names(keys, meta) == slot_names(keys) == expected


def test_the_graph_goes_before_the_names() -> None:
    """A variable that is trained is no slot, whatever it is called."""
    meta = of_graph(lambda: [v1.get_variable(name, [2]) for name in ("w", "w/Adam")])
    assert slot_names(["w", "w/Adam"]) == {"w/Adam"}
    assert slot_names(["w", "w/Adam"], meta) == set()


def test_slots_that_the_saver_renames() -> None:
    with tf.Graph().as_default() as graph:
        _, own = _train(OPTIMIZERS["adam"])
        names = {f"v{i}": variable for i, variable in enumerate(v1.global_variables())}
        saver = v1.train.Saver(names).as_saver_def()
        meta = of_proto(v1.train.export_meta_graph(graph=graph, saver_def=saver))
    expected = {key for key, variable in names.items() if variable.op.name in own}
    assert len(expected) == 6
    assert slot_names(names, meta) == expected


def test_slots_of_a_partitioned_variable() -> None:
    def build() -> None:
        splits = v1.fixed_size_partitioner(2)
        w = v1.get_variable("w", [4, 3], partitioner=splits, use_resource=False)
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(tf.convert_to_tensor(w)))
        v1.train.Saver()

    keys = {"w", "w/Adam", "w/Adam_1", "beta1_power", "beta2_power"}
    assert slot_names(keys, of_graph(build)) == slot_names(keys) == keys - {"w"}


@pytest.mark.parametrize("make", [tf.keras.optimizers.Adam, v1.train.AdamOptimizer])
def test_object_based(make: Callable[[float], Any], tmp_path: Path) -> None:
    variable, optimizer = tf.Variable([1.0, 2.0]), make(0.1)
    optimizer.apply_gradients([(tf.ones([2]), variable)])
    checkpoint = tf.train.Checkpoint(net=variable, optimizer=optimizer)
    keys = CheckpointReader(checkpoint.save(str(tmp_path / "c"))).shapes.keys()
    assert len(keys) > 6
    kept = {f"net{VALUE}", f"save_counter{VALUE}", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert keys - slot_names(keys) == kept


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
        assert found == slot_names(keys)
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
