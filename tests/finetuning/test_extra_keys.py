"""Tensors of a base's checkpoint that its graph has no place for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import finetune
from errors import CheckpointError, TrainingError
from finetuning.fitting import make_task, without_place
from finetuning.settings import FinetuneConfig
from metagraph.meta import read_meta_graph
from tests.finetuning import bases

Config = Callable[..., FinetuneConfig]

ONE = np.ones(3, np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Callable[[Mapping[str, npt.NDArray[Any]]], str]:
    """Saves `bases.small`, with more tensors in its checkpoint than its graph knows."""

    def save(more: Mapping[str, npt.NDArray[Any]]) -> str:
        meta = bases.save(tmp_path, bases.small)
        prefix = meta.removesuffix(".meta")
        reader = tf.train.load_checkpoint(prefix)
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        values |= more
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            saved = tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=list(values),
                shape_and_slices=[""] * len(values),
                tensors=[tf.constant(value) for value in values.values()],
            )
            session.run(saved)
        return meta

    return save


@pytest.mark.parametrize("extra", ["first/gamma", "first/norm/gamma", "second/w2"])
def test_one_in_a_scope_that_is_taken_stops_the_run_unless_it_is_excluded(
    base: Callable[..., str], finetune_config: Config, extra: str
) -> None:
    config = finetune_config(base({extra: ONE}), "features", train_steps=1)
    with pytest.raises(CheckpointError, match=rf"holds {extra} .*no place.*--exclude") as raised:
        finetune.train(config)
    assert "\n" not in str(raised.value)
    config = finetune_config(config.meta, "features", train_steps=1, exclude=".*/(gamma|w2)")
    assert finetune.train(config).step == 1


@pytest.mark.parametrize(
    "extra",
    [
        "first/w/Adam",
        "first/w/Adam_1",
        "first/beta1_power",
        "first/w/ExponentialMovingAverage",
        "first_more/w",
        "third/w",
        "learning_rate",
        "o2",
    ],
)
def test_what_an_optimizer_an_average_or_another_layer_leaves_is_no_mistake(
    base: Callable[..., str], finetune_config: Config, extra: str
) -> None:
    assert finetune.train(finetune_config(base({extra: ONE}), "features", train_steps=1)).step == 1


def test_a_scope_that_is_not_taken_does_not_count(
    base: Callable[..., str], finetune_config: Config
) -> None:
    meta = base({"second/gamma": ONE})
    assert finetune.train(finetune_config(meta, "maps", train_steps=1)).step == 1


def test_keys_of_an_object_based_checkpoint(tmp_path: Path) -> None:
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    with tf.Graph().as_default():
        bases.small()
        graph = tf.compat.v1.train.export_meta_graph(str(tmp_path / "m.meta"))
    assert graph.saver_def.restore_op_name == ""
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    held = {f"{name}{suffix}" for name in ("first/w", "first/gamma", "first/w/average")}
    assert without_place(meta, ["first/w"], held) == [f"first/gamma{suffix}"]


def test_an_exclude_that_matches_nothing_at_all_is_told_before_anything_is_trained(
    base: Callable[..., str], finetune_config: Config
) -> None:
    meta = base({"first/gamma": ONE})
    with pytest.raises(TrainingError, match="--exclude=gamma: it matches none"):
        make_task(finetune_config(meta, "features", exclude="gamma"))
