"""Scripts whose standard streams have been closed by whoever started them."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
_SCRIPT = """
import os, sys
from dataclasses import dataclass
from cli.run import run
from cli.supervisor import Supervisor

def main(values):
    with open(sys.argv[0] + ".txt", "w") as file:
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        file.write(f"{sys.stdin.read()}{file.fileno() > 2}")

run(main, dataclass(type("Request", (), {})), "Does a thing.", {supervisor})
"""
_CLOSED = [
    closed
    for count in (1, 2, 3)
    for closed in itertools.combinations(("<&-", ">&-", "2>&-"), count)
]


@pytest.mark.parametrize("supervisor", [None, "Supervisor('give it less')"])
@pytest.mark.parametrize("closed", _CLOSED, ids=" ".join)
def test_a_closed_stream_is_empty_and_the_work_is_done(
    tmp_path: Path, closed: tuple[str, ...], supervisor: str | None
) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("{supervisor}", str(supervisor)))
    ended = subprocess.run(
        ["sh", "-c", f'"$0" "$1" {" ".join(closed)}', sys.executable, str(script)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert ended.returncode == 0
    assert ended.stdout == ("" if ">&-" in closed else "to stdout\n")
    assert ended.stderr == ("" if "2>&-" in closed else "to stderr\n")
    assert (tmp_path / "script.py.txt").read_text() == "True"
