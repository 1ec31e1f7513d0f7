"""Runs that do not end, and runs that do."""

import threading
import time
from typing import Any

import pytest

from prediction import overtime


class _Graph:
    running_since: float | None = None


def _watch(monkeypatch: pytest.MonkeyPatch, graph: Any, seconds: float) -> list[str]:
    """What is said while a graph runs for so long under a limit of 0.1 s."""
    monkeypatch.setattr(overtime, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(overtime, "_CHECK_SECONDS", 0.01)
    lines: list[str] = []
    with overtime.watched(graph, 0.1, lines.append):
        time.sleep(seconds)
    return lines


def test_a_run_that_does_not_end_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _Graph()
    graph.running_since = time.monotonic()
    (line,) = _watch(monkeypatch, graph, 0.4)
    assert line.startswith("one run took longer than --time_limit=0.1 seconds, and does not end")


def test_between_runs_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watch(monkeypatch, _Graph(), 0.4) == []


@pytest.mark.parametrize(("limit", "end"), [(0.0, lambda _: None), (1.0, None)])
def test_without_a_limit_nothing_watches(limit: float, end: Any) -> None:
    graph: Any = _Graph()
    before = threading.active_count()
    with overtime.watched(graph, limit, end):
        assert threading.active_count() == before
