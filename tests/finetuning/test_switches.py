"""What tells a graph that it is being trained, found in graphs of several styles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from errors import TrainingError
from finetuning.graph_changes import Setting, find_settings
from metagraph.graph import sub_graph
from metagraph.meta import read_meta_graph
from tests.finetuning import bases

v1 = tf.compat.v1


def _settings(folder: Path, build: Callable[[tf.Tensor], Any], *given: str) -> list[Setting]:
    def graph() -> None:
        tf.identity(build(v1.placeholder(tf.float32, [None, 4], name="x")), name="y")

    meta = read_meta_graph(bases.save(folder, graph))
    needed = sub_graph(meta, ["y:0"], ["x:0"])
    return find_settings(needed, "x:0", given, switched_on=True)


def _number(name: str) -> tf.Tensor:
    return v1.placeholder(tf.float32, [], name=name)


def _by_floor(x: tf.Tensor) -> tf.Tensor:
    """As TensorFlow had it until 1.12."""
    keep = _number("p")
    return x / keep * tf.floor(keep + tf.random.uniform(tf.shape(x)))


def _by_rate(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, rate=_number("p"))


def _by_keep(x: tf.Tensor) -> tf.Tensor:
    return v1.nn.dropout(x, rate=1 - _number("p"))


def _by_name(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: x * _number(name)


@pytest.mark.parametrize(
    ("build", "otherwise"),
    [
        (_by_floor, 1.0),
        (_by_keep, 1.0),
        (_by_rate, 0.0),
        (_by_name("dropout_keep_prob"), 1.0),
        (_by_name("Dropout"), 0.0),
    ],
)
def test_a_dropout_keeps_a_half_in_training_and_all_otherwise(
    tmp_path: Path, build: Callable[[tf.Tensor], tf.Tensor], otherwise: float
) -> None:
    (setting,) = _settings(tmp_path, build)
    assert (setting.training, setting.otherwise) == (0.5, otherwise)


@pytest.mark.parametrize(("default", "training"), [(0.8, pytest.approx(0.8)), (1.0, 0.5)])
def test_a_default_that_drops_something_is_that_of_training(
    tmp_path: Path, default: float, training: Any
) -> None:
    (setting,) = _settings(tmp_path, lambda x: x * v1.placeholder_with_default(default, [], "keep"))
    assert (setting.training, setting.otherwise) == (training, 1.0)


@pytest.mark.parametrize(
    ("name", "training"), [("is_training", True), ("phase", True), ("testing", False)]
)
def test_a_switch_is_on_in_training(tmp_path: Path, name: str, training: bool) -> None:
    (setting,) = _settings(
        tmp_path, lambda x: tf.where(v1.placeholder(tf.bool, [], name=name), x, -x)
    )
    assert (setting.training, setting.otherwise) == (training, not training)


def test_what_is_given_goes_before_all(tmp_path: Path) -> None:
    (setting,) = _settings(tmp_path, _by_rate, "p=0.25")
    assert (float(setting.training), setting.otherwise) == (0.25, 0.0)


def test_any_other_value_has_to_be_given_and_holds_in_predictions_too(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"takes heat:0 float32 \[\] .*--train_feed=heat="):
        _settings(tmp_path, _by_name("heat"))
    (setting,) = _settings(tmp_path, _by_name("heat"), "heat=2")
    assert (setting.training, setting.otherwise) == (2.0, 2.0)


@pytest.mark.parametrize("text", ["much", "[0.5]", "true", "{}", "1", "-0.5", "1e999", "1e39"])
def test_a_value_that_does_not_fit_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrainingError, match="--train_feed=p=") as raised:
        _settings(tmp_path, _by_rate, f"p={text}")
    assert "\n" not in str(raised.value)


def test_a_setting_says_what_it_is(tmp_path: Path) -> None:
    (setting,) = _settings(tmp_path, _by_rate)
    assert str(setting) == "p:0 (the share that a dropout drops) 0.5, otherwise 0.0"
