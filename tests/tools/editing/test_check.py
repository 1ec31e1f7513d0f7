"""How far two models are apart, and what of that is allowed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from errors import ToolError
from metagraph.meta import MetaGraphFile, read_meta_graph
from tests.prediction import stock
from tools.edit import EditConfig
from tools.editing import check_same

v1 = tf.compat.v1

Values = Sequence[float] | npt.NDArray[Any]
Make = Callable[[Values], MetaGraphFile]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a model whose output is its variable, of some values."""

    def call(values: Values) -> MetaGraphFile:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.meta"
        with stock.checkpoint(path.with_suffix("")):
            tf.identity(v1.get_variable("w", initializer=np.asarray(values)), "y")
        return read_meta_graph(str(path))

    return call


def _check(
    old: MetaGraphFile, new: MetaGraphFile, cast: str | None, tolerance: float | None = None
) -> float:
    config = EditConfig(output="", cast=cast, tolerance=tolerance)
    return check_same(old, new, ["y:0"], config)


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def test_the_same_values_are_the_same(make: Make) -> None:
    values = _floats(1, np.nan, np.inf, -0.0)
    assert _check(make(values), make(values), None) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_floats(1, 2), _floats(1, np.nextafter(_floats(2), 3)[0])),
        (_floats(0.0), _floats(-0.0)),
        (_floats(1), _floats(np.nan)),
        (_floats(1), np.array([1], np.float64)),
        (_floats(1), _floats(1, 1)),
        (np.array([1]), np.array([2])),
        (np.array([b"a"], object), np.array([b"b"], object)),
    ],
)
def test_without_a_cast_anything_else_is_another(
    make: Make, one: npt.NDArray[Any], other: npt.NDArray[Any]
) -> None:
    with pytest.raises(ToolError, match="nothing is written, as y:0 would be another"):
        _check(make(one), make(other), None)


@pytest.mark.parametrize(
    ("cast", "allowed", "refused"),
    [("float16", 0.0150, 0.0160), ("bfloat16", 0.12, 0.13), ("float32", 1.8e-6, 2.0e-6)],
)
def test_with_a_cast_numbers_may_be_as_far_apart_as_is_said(
    make: Make, cast: str, allowed: float, refused: float
) -> None:
    old = make(np.array([0.5, -10.0]))
    assert _check(old, make([0.5 + 10 * allowed, -10.0]), cast) == pytest.approx(allowed)
    with pytest.raises(ToolError, match="--tolerance allows another part"):
        _check(old, make([0.5 + 10 * refused, -10.0]), cast)
    assert _check(old, make([0.5 + 10 * refused, -10.0]), cast, 0.2) == pytest.approx(refused)


def test_with_a_cast_classes_may_change_and_what_is_not_finite_may_not(make: Make) -> None:
    assert _check(make([1, 2]), make([1, 3]), "float16") == 0
    values = _floats(1, np.nan, np.inf)
    assert _check(make(values), make(values * _floats(1, -1, 1)), "float16") == 0
    with pytest.raises(ToolError, match="differs by inf"):
        _check(make(values), make(_floats(1, np.nan, 5)), "float16")


def test_a_result_that_cannot_be_restored_is_said(make: Make) -> None:
    old, new = make(_floats(1)), make(_floats(1))
    with stock.checkpoint(Path(new.prefix)):
        v1.get_variable("v", initializer=1.0)
    with pytest.raises(ToolError, match="could not be restored: w is missing"):
        _check(old, new, None)
