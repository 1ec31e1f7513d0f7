"""What the tests of the campaigns share: a campaign in a process of its own."""

from collections.abc import Callable

import pytest

from tests.conftest import run_python


@pytest.fixture(scope="session")
def campaign() -> Callable[..., str]:
    """Runs `python -m benchmarks.<name> <flags>` to its good end; returns its stdout.

    In a process of its own: once a session exists, a fork has no threads to run it.
    """

    def run(name: str, *given: str) -> str:
        ended = run_python("-m", f"benchmarks.{name}", *given, timeout=900)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run
