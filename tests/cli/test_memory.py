"""How much memory there is, and limits on it."""

import resource
from pathlib import Path

import pytest

from cli import run as supervisor


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says what the container may have; none exists yet."""
    path = tmp_path / "memory.max"
    monkeypatch.setattr(supervisor, "_CONTAINER", (path, tmp_path / "missing"))
    return path


def _machine() -> int:
    (line,) = (x for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x)
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("content", [None, "max\n", f"{1 << 60}\n"])
def test_without_a_limit_it_is_the_machine_s(container: Path, content: str | None) -> None:
    if content is not None:
        container.write_text(content)
    assert supervisor.available_bytes() == pytest.approx(_machine(), rel=0.01)


def test_a_container_may_have_less(container: Path) -> None:
    container.write_text(f"{300 << 20}\n")
    assert supervisor.available_bytes() == 300 << 20


@pytest.mark.parametrize(
    ("hard", "expected"), [(resource.RLIM_INFINITY, (1 << 30) + (128 << 20)), (1 << 20, 1 << 20)]
)
def test_threads_have_their_stacks_and_a_lower_limit_stays(
    monkeypatch: pytest.MonkeyPatch, hard: int, expected: int
) -> None:
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, to: set_to.append((kind, to)))
    supervisor.limit_memory(1 << 30)
    assert set_to == [(resource.RLIMIT_DATA, (expected, hard))]
