"""What a run begins with, and what the log says of it."""

import numpy as np
import pytest

from training.task import NONE, InitialValues, log_origins


def _initial(*names: str) -> InitialValues:
    return InitialValues(
        {name: np.zeros(2, np.float32) for name in names}, dict.fromkeys(names, "m/my-model-1")
    )


def test_each_variable_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "absl")
    log_origins(["a/w", "b/w"], _initial("a/w"))
    assert caplog.messages == ["a/w: restored from m/my-model-1", "b/w: new"]


def test_of_hundreds_each_scope_has_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "absl")
    names = [f"a/{number}" for number in range(100)] + ["step", "b/0", "b/1"]
    log_origins(names, _initial(*names[:99]))
    assert caplog.messages == [
        "a/0 and 98 more of a: restored from m/my-model-1",
        "a/99: new",
        "step: new",
        "b/0 and 1 more of b: new",
    ]


def test_where_all_is_new_there_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "absl")
    log_origins(["a", "b"], NONE)
    assert caplog.messages == []


def test_the_digest_tells_names_shapes_dtypes_and_values() -> None:
    digests = {
        InitialValues({name: np.full(shape, value, dtype)}, {name: ""}).digest()
        for name in "ab"
        for shape in ((4,), (2, 2))
        for dtype in (np.float32, np.int32)
        for value in (0, 1)
    }
    assert len(digests) == 16
    assert _initial("a", "b").digest() == _initial("b", "a").digest()
