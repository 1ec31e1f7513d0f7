"""Starts commands side by side, for the tests of workers, without the seconds of each import.

    python -m tests.training.started < requests

reads a line of JSON for each command: {"argv": ..., "environment": ..., "base": path}. It is a fork
of this process, which has imported TensorFlow and makes no session. Its number is the line that is
answered; its output goes to <base>.out and <base>.err, its exit code to <base>.code.
"""

import json
import os
import sys
from pathlib import Path

from tests.player import _as_python, _fork


def main() -> None:
    """Answers line by line, until there are no more."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    tf.config.list_physical_devices()
    for line in sys.stdin:
        given = json.loads(line)

        def work(given: dict[str, object] = given) -> int:
            return _watch(given)

        _fork(work)


def _watch(given: dict[str, object]) -> int:
    """Starts the command in a process of its own, and writes how it ended."""
    base = str(given["base"])

    def work() -> int:
        os.setsid()
        for number, path in enumerate((os.devnull, f"{base}.out", f"{base}.err")):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(given["environment"])  # type: ignore[call-overload]
        _as_python(given["argv"])  # type: ignore[arg-type]
        return 0

    child = _fork(work)
    print(child, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Path(f"{base}.part").write_text(str(code))
    os.replace(f"{base}.part", f"{base}.code")
    return 0


if __name__ == "__main__":
    main()
