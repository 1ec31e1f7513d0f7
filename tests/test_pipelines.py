"""The README's command lines, as a user runs them: one process each."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PROJECT, as_with_onednn, run_python

Send = Callable[[int, int], None]


def _run(folder: Path, script: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script of the project in `folder`."""
    return run_python(PROJECT / script, *flags, cwd=folder)


def test_train_linear_then_predict(tmp_path: Path) -> None:
    trained = _run(tmp_path, "train_linear.py", "--ckpt_dir=model")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == "step 300: w = 0.1000, b = 0.2000 in model/my-model-300\n"
    lines = as_with_onednn(trained.stderr).splitlines()
    assert lines[0] == "starting model at step 0"
    assert lines[1].startswith("step 10/300  loss ")
    assert lines[-2] == "finished: model/my-model-300, step 300 of 300"
    assert lines[-1].endswith("/predict.py --meta=model/my-model-300.meta '--feed=x=[0.5, 2.0]'")
    assert len(lines) == 33  # None of TensorFlow's.

    predicted = _run(tmp_path, "predict.py", "--meta=model/my-model-290.meta", "--fetch=w:0,b:0")
    assert predicted.returncode == 0, predicted.stderr
    prefix = "model/my-model-290"
    assert predicted.stderr == f"graph {prefix}.meta, variables {prefix}\n"
    numbers = [float(n.strip("[]")) for n in predicted.stdout.split() if n.strip("[]")[:1] == "0"]
    np.testing.assert_allclose(numbers, [0.1, 0.2], atol=1e-4)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two processors, and a system that lends one",
)
def test_small_steps_give_the_same_bytes_on_one_processor(tmp_path: Path) -> None:
    """They run in one thread, however many processors there are."""
    here = os.sched_getaffinity(0)
    for name, processors in (("all", here), ("one", {min(here)})):
        os.sched_setaffinity(0, processors)
        try:
            given = (f"--ckpt_dir={name}", "--train_steps=30", "--batch_size=10")
            ended = _run(tmp_path, "train_cnn.py", *given)
        finally:
            os.sched_setaffinity(0, here)
        assert ended.returncode == 0, ended.stderr
    name = "my-model-30.data-00000-of-00001"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def _ended(
    folder: Path, send: Send, number: int, begun: Callable[[int], object], *command: str
) -> tuple[str, str]:
    """Sends a signal to a script once it has begun; returns its stdout and its stderr."""
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / command[0]), *command[1:]],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while not begun(process.pid) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    send(process.pid, number)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + number, errors
    return output, errors


def _stop(folder: Path, send: Send, number: int, *command: str) -> int:
    """Stops a trainer once it has saved; returns the step it stopped at."""

    def has_saved(_: int) -> bool:
        return any(folder.glob("model/*.manifest"))

    command = (*command, "--train_steps=2000000")
    output, errors = _ended(folder, send, number, has_saved, *command)
    step = int(output.split()[1].rstrip(":"))
    assert f"stopped at step {step} of 2000000" in errors
    assert (folder / "model" / f"my-model-{step}.manifest").exists()
    return step


def test_ctrl_c_and_the_same_line_again(tmp_path: Path) -> None:
    command = ("train_linear.py", "--ckpt_dir=model", "--max_to_keep=1")
    step = _stop(tmp_path, os.kill, signal.SIGINT, *command, "--save_every_steps=1000")
    assert step > 1000
    again = _run(tmp_path, *command, f"--train_steps={step + 5}")
    assert again.returncode == 0, again.stderr
    assert f"resuming model/my-model-{step}\n" in again.stderr
    assert f"finished: model/my-model-{step + 5}" in again.stderr


@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_stopped_fine_tuning_saves_its_step(
    cnn_run: Path, tmp_path: Path, number: int, send: Send
) -> None:
    """Ctrl-C reaches its two processes, and one passes it on to the other; SIGTERM the first."""
    flags = ("--tensor=fc1/add", "--data=ramp", "--ckpt_dir=model", "--save_every_steps=100")
    _stop(tmp_path, send, number, "finetune.py", f"--meta={cnn_run}", *flags)


def _maps_tensorflow(script: int) -> bool:
    """Whether the process that a script has started for its work is importing TensorFlow."""
    children = Path(f"/proc/{script}/task/{script}/children").read_text().split()
    return any("libtensorflow" in Path(f"/proc/{pid}/maps").read_text() for pid in children)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into a process of Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_start_up_writes_nothing(tmp_path: Path, number: int) -> None:
    """In the middle of the import of TensorFlow: some of it is in memory."""
    command = ("train_linear.py", "--ckpt_dir=model")
    assert _ended(tmp_path, os.kill, number, _maps_tensorflow, *command) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_real_images_reach_an_accuracy(real_data: Path, tmp_path: Path) -> None:
    """Two epochs of the CIFAR-10 classes; chance is 0.25."""
    subprocess.run(["tar", "xzf", real_data / "cifar4.tar.gz", "-C", tmp_path], check=True)
    data = next(path.parent for path in tmp_path.rglob("train"))
    arguments = (f"--data={data}", "--epochs=2", "--batch_size=128", "--save_every_steps=1000")
    trained = _run(tmp_path, "train_cnn.py", "--ckpt_dir=cifar", *arguments)
    assert trained.returncode == 0, trained.stderr
    test_accuracy = float(trained.stderr.split("test accuracy ")[-1].split()[0])
    assert test_accuracy > 0.65

    given = ("--meta=cifar/my-model-313.meta", f"--input={data}/test")
    predicted = _run(tmp_path, "predict.py", *given)
    assert predicted.returncode == 0, predicted.stderr
    assert f"{test_accuracy:.4g}" in predicted.stdout
