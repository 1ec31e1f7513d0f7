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
from tools.edit_check import check_same

v1 = tf.compat.v1

Values = Sequence[float] | npt.NDArray[Any]
Check = Callable[..., float]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Compares two models whose output is their variable, of some values."""

    def made(name: str, values: Values) -> MetaGraphFile:
        with stock.checkpoint(tmp_path / name):
            tf.identity(v1.get_variable("w", initializer=np.asarray(values)), "y")
        return read_meta_graph(f"{tmp_path}/{name}.meta")

    def call(one: Values, other: Values, **options: Any) -> float:
        config = EditConfig(output="", **options)
        return check_same(made("one", one), made("other", other), ["y:0"], config)

    return call


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def test_the_same_values_are_the_same(check: Check) -> None:
    values = _floats(1, np.nan, np.inf, -0.0)
    assert check(values, values) == 0


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
def test_without_a_cast_anything_else_is_another(check: Check, one: Values, other: Values) -> None:
    with pytest.raises(ToolError, match="nothing is written, as y:0 would be another"):
        check(one, other)


@pytest.mark.parametrize(
    ("cast", "allowed", "refused"),
    [("float16", 0.0150, 0.0160), ("bfloat16", 0.12, 0.13), ("float32", 1.8e-6, 2.0e-6)],
)
def test_with_a_cast_numbers_may_be_as_far_apart_as_is_said(
    check: Check, cast: str, allowed: float, refused: float
) -> None:
    old, near, far = ([0.5 + 10 * apart, -10.0] for apart in (0, allowed, refused))
    assert check(old, near, cast=cast) == pytest.approx(allowed)
    with pytest.raises(ToolError, match="--tolerance allows another part"):
        check(old, far, cast=cast)
    assert check(old, far, cast=cast, tolerance=0.2) == pytest.approx(refused)


def test_with_a_cast_classes_may_change_and_what_is_not_finite_may_not(check: Check) -> None:
    assert check([1, 2], [1, 3], cast="float16") == 0
    values = _floats(1, np.nan, np.inf)
    assert check(values, values * _floats(1, -1, 1), cast="float16") == 0
    with pytest.raises(ToolError, match="differs by inf"):
        check(values, _floats(1, np.nan, 5), cast="float16")


def test_a_result_that_cannot_be_restored_is_said(check: Check, tmp_path: Path) -> None:
    check([1.0], [1.0])
    old, new = (read_meta_graph(f"{tmp_path}/{name}.meta") for name in ("one", "other"))
    with stock.checkpoint(tmp_path / "other"):
        v1.get_variable("v", initializer=1.0)
    with pytest.raises(ToolError, match="could not be restored: w is missing"):
        check_same(old, new, ["y:0"], EditConfig(output=""))
