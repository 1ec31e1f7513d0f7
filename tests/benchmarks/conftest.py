"""What the tests of the campaigns share: a campaign in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def campaign() -> Callable[..., str]:
    """Runs `python -m benchmarks.<name> <flags>` to its good end; returns its stdout.

    In a process of its own: once a session exists, a fork has no threads to run it.
    """

    def run(name: str, *given: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *given],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run
