"""Plays command lines, each in a process of its own, for tests/test_transcripts.py.

    python tests/player.py < scenes.json > plays.json

TensorFlow is imported once, in a process that never makes a session; every command is a fork of it.
So a command is what a user starts, with its own threads, exit code and output, without the seconds
of the import. A scene is a list of commands that run in one folder, one after another. The first
scene's folder is copied for each of the others, two of which run side by side.
"""

import functools
import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SECONDS = 300  # that one command may take
_SIDE_BY_SIDE = 2


def main() -> None:
    """Reads {"folder": ..., "scenes": {name: commands}}; writes {name: [[code, out, err], ...]}."""
    given = json.load(sys.stdin)
    folder, scenes = Path(given["folder"]), dict(given["scenes"])
    sys.path[0] = str(PROJECT)
    from cli.terminal import import_tensorflow

    import_tensorflow()
    first, *others = scenes
    _wait([_fork(functools.partial(_play, folder, first, scenes[first]))])
    for name in others:
        shutil.copytree(folder / first, folder / name, symlinks=True)
    running: list[int] = []
    for name in others:
        if len(running) == _SIDE_BY_SIDE:
            ended, _ = os.wait()
            running.remove(ended)
        running.append(_fork(functools.partial(_play, folder, name, scenes[name])))
    _wait(running)
    json.dump(
        {name: json.loads((folder / f"{name}.json").read_text()) for name in scenes}, sys.stdout
    )


def _fork(work: Callable[[], int | None]) -> int:
    """Starts a process that does some work and exits with what it returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code: object = 1
    try:
        code = work() or 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 (the process ends here, as Python would end it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _wait(children: list[int]) -> None:
    for child in children:
        os.waitpid(child, 0)


def _play(folder: Path, name: str, commands: list[str]) -> None:
    """Runs a scene's commands and writes what came of them."""
    place = folder / name
    place.mkdir(exist_ok=True)
    os.chdir(place)
    found = [_run(command, folder / f"{name}.out", folder / f"{name}.err") for command in commands]
    (folder / f"{name}.json").write_text(json.dumps(found))


def _run(command: str, out: Path, err: Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of one command."""

    def work() -> int:
        os.setsid()
        for number, path in enumerate((Path(os.devnull), out, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        words = shlex.split(command)
        if words[0] != "python":
            return subprocess.run(command, shell=True, check=False).returncode
        _as_python(words[1:])
        return 0

    child = _fork(work)
    deadline = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(ended[1])
    return code, out.read_text(errors="replace"), err.read_text(errors="replace")


def _as_python(words: list[str]) -> None:
    """What `python <words>` does: -c program, -m module, or a script of the project."""
    if words[0] == "-c":
        exec(compile(words[1], "-c", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(PROJECT / words[0]), *words[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
