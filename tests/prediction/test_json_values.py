"""Arrays as JSON."""

import json
from typing import Any

import numpy as np
import pytest

from metagraph.casting import json_value


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (np.array(2.5), "2.5"),
        (np.array([True, False]), "[true, false]"),
        (np.array([1.5, np.nan, np.inf, -np.inf]), '[1.5, "NaN", "Infinity", "-Infinity"]'),
        (np.array(np.float32("nan")), '"NaN"'),
        (np.array([b"a", b"\xc3\xa9", b"\xff"], object), '["a", "é", "\\\\xff"]'),
        (np.array(b"a", object), '"a"'),
        (np.zeros((0, 2), object), "[]"),
        (np.zeros((2, 0)), "[[], []]"),
        (np.array([1 + 2j]), '["(1+2j)"]'),
    ],
)
def test_json_value(array: Any, expected: str) -> None:
    assert json.dumps(json_value(array), ensure_ascii=False, allow_nan=False) == expected


def test_float32_reads_back_to_the_bit() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = np.array(json.loads(json.dumps(json_value(values))), np.float32)
    assert found.tobytes() == values.tobytes()
