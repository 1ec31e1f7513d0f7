"""What the last bits of a run depend on."""

import pytest
import tensorflow as tf

from cli.terminal import INTRA_OP_THREADS_VARIABLE
from training import resume


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("12", 12)])
def test_threads_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str, threads: int
) -> None:
    monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, given)
    assert resume.environment()["threads"] == threads


@pytest.mark.parametrize("given", ["", "0", "-3", "many"])
def test_threads_are_processors_where_none_or_nonsense_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """TensorFlow, too, takes nonsense for nothing."""
    monkeypatch.delenv(INTRA_OP_THREADS_VARIABLE, raising=False)
    processors = resume.environment()["threads"]
    assert processors >= 1
    monkeypatch.setenv(INTRA_OP_THREADS_VARIABLE, given)
    assert resume.environment()["threads"] == processors


def test_the_tensorflow_that_runs() -> None:
    assert resume.environment()["tensorflow"] == tf.__version__
