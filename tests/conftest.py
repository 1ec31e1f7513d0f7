"""What every test has: a time limit, the real data, configs, and a finished run of each model."""

import faulthandler
import gc
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from absl import logging

from cli.terminal import ONEDNN_VARIABLE, is_off

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the scripts have it, before TensorFlow.
# JAX, where it is installed, would set 1 for all that is started from here on.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PROJECT = Path(__file__).resolve().parent.parent
Make = Callable[..., Any]
Patch = pytest.MonkeyPatch
Log = pytest.LogCaptureFixture
Capture = pytest.CaptureFixture[str]

LIMIT_SECONDS = 1200  # of a test's set-up, of itself, of what comes after: many times the slowest


@contextmanager
def _time_limit(item: pytest.Item) -> Iterator[None]:
    """Fails this test, and no other, where it waits without an end (not on Windows).

    A call into a library that does not return is out of reach: pytest's `faulthandler_timeout` is
    for that.
    """

    def fail(number: int, frame: FrameType | None) -> None:
        del number, frame
        faulthandler.dump_traceback(2)  # All threads, on stderr, shown with the failure.
        pytest.fail(f"{item.nodeid} takes longer than {LIMIT_SECONDS} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def _limited(item: pytest.Item) -> Generator[None, None, None]:
    with _time_limit(item):
        return (yield)


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = _limited


def run_python(
    *arguments: str | Path, check: bool = False, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Runs Python as a user does, in the project's folder unless another is given."""
    command = [sys.executable, *map(str, arguments)]
    given: dict[str, Any] = {"cwd": PROJECT, "capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(command, check=check, **{**given, **options})


def as_with_onednn(text: str) -> str:
    """What is said of oneDNN as where it is on, if whoever runs the tests has switched it off."""
    if not is_off(os.environ[ONEDNN_VARIABLE]):
        return text
    text = re.sub(rf"(?m)^(! )?warning: {ONEDNN_VARIABLE}=.*\n", "", text)
    return re.sub(r"(\bonednn\"?:? \"?)0", r"\g<1>1", text)


@pytest.fixture(autouse=True)
def absl_level() -> Iterator[None]:
    """Restores the level of absl's log, which tf.saved_model.save changes for good."""
    level = logging.get_absl_logger().level
    yield
    logging.get_absl_logger().setLevel(level)


def _shared(name: str, what: str) -> Path:
    """A folder beside the project; skips the test where it is not."""
    folder = PROJECT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"needs {what} at ../shared/{name}")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and digits."""
    return _shared("data", "the real data")


@pytest.fixture(scope="session")
def third_party() -> Path:
    """The folder of the checkpoints of public projects."""
    return _shared("thirdparty", "the checkpoints of public projects")


def _maker(trainer: str, request: str, **defaults: Any) -> Any:
    """A fixture: makes a script's default config, for a folder and with changes by name."""

    @pytest.fixture(scope="session")
    def make_config() -> Make:
        from cli.fields import parse
        from tests import runs

        kind = getattr(importlib.import_module(trainer), request)

        def make(ckpt_dir: Path, **changes: Any) -> Any:
            config: Any = parse(kind, ["script", f"--ckpt_dir={ckpt_dir}"])
            return runs.with_run(config, **{**defaults, **changes})

        return make

    return make_config


linear_config = _maker("train_linear", "LinearConfig")
cnn_config = _maker("train_cnn", "CnnConfig", data="ramp", batch_size=10, learning_rate=1e-3)
mlp_config = _maker("train_mlp", "MlpConfig")


def _finished(trainer: str, config: Any) -> Path:
    assert importlib.import_module(trainer).train(config).exit_code == 0
    return Path(config.run.ckpt_dir)


@pytest.fixture(scope="session")
def linear_run(linear_config: Make, tmp_path_factory: Any) -> Path:
    """The folder of a default run of train_linear.py."""
    return _finished("train_linear", linear_config(tmp_path_factory.mktemp("linear") / "model"))


@pytest.fixture
def run(linear_run: Path, tmp_path: Path) -> Path:
    """A copy of a default run: my-model-270 to 300."""
    return Path(shutil.copytree(linear_run, tmp_path / "model"))


@pytest.fixture(scope="session")
def cnn_run(cnn_config: Make, tmp_path_factory: Any) -> Path:
    """The folder of a default run of train_cnn.py, but on the ramp."""
    return _finished("train_cnn", cnn_config(tmp_path_factory.mktemp("cnn") / "model1"))


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An .npz of 24 images of three classes, told by their colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = rng.integers(0, 80, (24, 32, 32, 3)).astype(np.uint8)
    images[np.arange(24), :, :, labels] += 150
    path = tmp_path_factory.mktemp("three") / "three.npz"
    np.savez(path, X=images, Y=labels)
    return str(path)


@pytest.fixture
def finetune_config(three_classes: str, tmp_path: Path) -> Make:
    """Makes the config of twelve steps of five images on a model, with changes by name."""
    from finetuning import FinetuneConfig
    from tests import runs
    from training.config import RunConfig

    defaults: dict[str, Any] = {"save_every_steps": 4, "train_steps": 12, "batch_size": 5}

    def make(meta: str | Path, tensor: str, **changes: Any) -> Any:
        given = {"ckpt_dir": tmp_path / "finetuned", "data": three_classes, **defaults, **changes}
        run = RunConfig(str(given.pop("ckpt_dir")))
        config = FinetuneConfig(run=run, meta=str(meta), tensor=tensor, data=given.pop("data"))
        return runs.with_run(config, **given)

    return make


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported lives to the end: the garbage collector need not look at it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
