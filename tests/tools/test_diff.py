"""`python -m tools.diff`: its lines, its JSON and its exit code, held against NumPy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.prediction import stock
from tests.tools.conftest import Tool, document

v1 = tf.compat.v1


def _save(prefix: Path, values: Mapping[str, Any], **saver_options: Any) -> str:
    with stock.checkpoint(prefix, **saver_options):
        for name, value in values.items():
            v1.get_variable(name, initializer=np.asarray(value), use_resource=False)
    return str(prefix)


def _variables(tool: Tool, *arguments: object) -> dict[str, dict[str, Any]]:
    record = document(tool, "diff", *arguments, "--only=variables")
    return {variable["name"]: variable for variable in record["variables"]}


def test_two_steps_differ_as_numpy_says(cnn_run: Path, tool: Tool) -> None:
    a, b = (f"{cnn_run}/my-model-{step}" for step in (190, 200))
    found = _variables(tool, a, b)
    one, other = tf.train.load_checkpoint(a), tf.train.load_checkpoint(b)
    assert found.keys() == one.get_variable_to_shape_map().keys()
    for name, variable in found.items():
        x, y = (np.asarray(r.get_tensor(name), np.float64) for r in (one, other))
        values = variable["values"]
        assert values["largest"] == np.abs(x - y).max()
        assert values["differing"] == np.count_nonzero(x != y)
        sizes = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-300)
        assert values["relative"] == pytest.approx((np.abs(x - y) / sizes).max(), rel=1e-9)


def test_what_only_one_has_and_what_has_another_shape_or_dtype(tmp_path: Path, tool: Tool) -> None:
    a = _save(tmp_path / "a", {"gone": 1.0, "size": [1.0], "kind": [1, 2], "same": 1.0})
    b = _save(tmp_path / "b", {"new": 1.0, "size": [[1.0]], "kind": [1.0, 2.5], "same": 1.0})
    found = _variables(tool, a, b)
    statuses = {"gone": "only in A", "kind": "dtype", "new": "only in B", "same": "equal"}
    assert {n: found[n]["status"] for n in found} == {**statuses, "size": "shape"}
    assert [*found] == sorted(found)
    assert found["kind"]["values"]["largest"] == 0.5
    assert found["size"]["b"] == {"dtype": "float64", "shape": [1, 1]}
    text = tool("diff", a, b).out
    assert "shape: float64 [1] -> float64 [1, 1]" in text
    assert "dtype: int64 [2] -> float64 [2]" in text


@pytest.mark.parametrize(("tolerance", "code"), [(0, 1), (0.4, 1), (0.5, 0), (9, 0)])
def test_differences_up_to_the_tolerance_count_as_none(
    tolerance: float, code: int, tmp_path: Path, tool: Tool
) -> None:
    a, b = _save(tmp_path / "a", {"w": [1.0, 2.0]}), _save(tmp_path / "b", {"w": [1.5, 2.0]})
    ended = tool("diff", a, b, f"--tolerance={tolerance}", "--only=variables")
    assert ended.code == code
    assert ("taken as equal, of other bytes: w (up to 0.5)" in ended.out) == (code == 0)


def test_nans_are_told_of(tmp_path: Path, tool: Tool) -> None:
    a, b = _save(tmp_path / "a", {"w": [np.nan, 1]}), _save(tmp_path / "b", {"w": [np.nan, 1]})
    c = _save(tmp_path / "c", {"w": [np.nan, np.nan]})
    same = tool("diff", a, b, "--only=variables")
    assert same.code == 0
    assert "NaN at the same places in both, taken as equal: w" in same.out
    values = _variables(tool, a, c, "--tolerance=1e9")["w"]["values"]
    assert (values["largest"], values["equal_nans"], values["differing"]) == ("Infinity", 1, 1)


def test_every_kind_of_value_in_every_format(tmp_path: Path, tool: Tool) -> None:
    half = np.asarray([1.5, 2.5], np.float16)
    kinds = {"text": ["a", "b"], "flag": [True, False], "half": half, "number": [2**62, 0]}
    kinds |= {"brain": half.astype(tf.bfloat16.as_numpy_dtype)}
    a = _save(tmp_path / "a", kinds)
    assert tool("diff", a, _save(tmp_path / "b", kinds)).code == 0
    others = {name: np.asarray(value)[::-1] for name, value in kinds.items()}
    found = _variables(tool, a, _save(tmp_path / "b", others))
    largest = {"text": None, "flag": 1, "half": 1.0, "brain": 1.0, "number": 2**62}
    assert {name: v["values"]["largest"] for name, v in found.items()} == largest
    assert all(variable["values"]["differing"] == 2 for variable in found.values())
    plain = {"w": np.arange(6.0).reshape(2, 3), "b": [1.0]}
    a, version = _save(tmp_path / "a", plain), v1.train.SaverDef.V1
    formats = [{"sharded": True}, {"write_version": version}]
    for number, options in enumerate([*formats, formats[0] | formats[1]]):
        other = _save(tmp_path / str(number), plain, **options)
        assert {v["status"] for v in _variables(tool, a, other).values()} == {"equal"}


def test_a_frozen_graph_and_its_checkpoint(tmp_path: Path, tool: Tool) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with stock.checkpoint(run / "m"):
        v1.get_variable("w", initializer=2.0, use_resource=False)
        frozen = v1.get_default_graph().as_graph_def()
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    record = document(tool, "diff", run, tmp_path / "frozen.pb")
    assert (record["differ"], record["variables"]) == (True, None)
    assert record["notes"] == [f"variables: {tmp_path}/frozen.pb has none, {run} has"]
    nodes = record["graph"]["nodes"]
    assert nodes["added"] == []
    assert "save/SaveV2" in nodes["removed"]


def test_a_saved_model_has_variables_and_a_graph(tmp_path: Path, tool: Tool) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, f"{tmp_path}/a")
    module.v.assign([1.0, 2.5])
    tf.saved_model.save(module, f"{tmp_path}/b")
    for same in ("a", "a/saved_model.pb"):
        ended = tool("diff", tmp_path / "a", tmp_path / same)
        assert (ended.code, ended.out.count("equal")) == (0, 2)
    found = _variables(tool, tmp_path / "a", tmp_path / "b")
    assert found["v/.ATTRIBUTES/VARIABLE_VALUE"]["values"]["largest"] == 0.5


def test_checkpoints_of_public_projects(third_party: Path, linear_run: Path, tool: Tool) -> None:
    for meta in sorted(third_party.rglob("*.meta")):
        assert tool("diff", meta, meta.parent).code == 0, meta
        record = document(tool, "diff", linear_run, meta)
        assert record["differ"]
        assert record["variables"]
        assert record["graph"]["nodes"]["added"]
