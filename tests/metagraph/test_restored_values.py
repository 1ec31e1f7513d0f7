"""Variables are given their values a part at a time, so that few are in memory twice."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metagraph import values
from metagraph.meta import read_meta_graph
from metagraph.session import load_inference_graph
from metagraph.values import Restoring
from tests.prediction import stock

v1 = tf.compat.v1
_SIZES = (10, 300, 20, 30, 400)


@pytest.mark.parametrize(
    ("limit", "steps"), [(1 << 20, [5]), (4 * 320, [2, 2, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_each_variable_is_assigned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, steps: list[int]
) -> None:
    monkeypatch.setattr(values, "_BYTES_A_STEP", limit)
    with stock.checkpoint(tmp_path / "m"):
        for index, size in enumerate(_SIZES):
            value = np.full(size, index, np.float32)
            v1.get_variable(f"v{index}", initializer=value, use_resource=index % 2 == 0)
    meta = read_meta_graph(f"{tmp_path}/m.meta")
    names = [f"v{index}" for index in range(len(_SIZES))]
    found = Restoring(meta, names, [], "restored").steps({})
    assert [len(step.targets) for step in found] == steps
    assert [len(step.feeds) for step in found] == steps
    for optimize in (True, False):
        with load_inference_graph(meta, [f"{n}:0" for n in names], optimize=optimize) as graph:
            for index, value in enumerate(graph.run()):
                np.testing.assert_array_equal(value, np.full(_SIZES[index], index, np.float32))
