"""What every test may use: the real data, and a finished run of each model. And its time limit."""

import faulthandler
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from absl import logging

if TYPE_CHECKING:
    from finetuning.settings import FinetuneConfig
    from train_cnn import CnnConfig
    from train_linear import LinearConfig
    from train_mlp import MlpConfig
    from training.config import RunConfig

PROJECT = Path(__file__).resolve().parent.parent


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
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with _time_limit(item):
        return (yield)


@pytest.fixture(autouse=True)
def absl_level() -> Iterator[None]:
    """Restores the level of absl's log, which tf.saved_model.save changes for good."""
    level = logging.get_absl_logger().level
    yield
    logging.get_absl_logger().setLevel(level)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and digits beside the project; skips the test where it is not."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data at ../shared/data")
    return folder


def _run_config(ckpt_dir: Path, changes: dict[str, Any]) -> "RunConfig":
    from training.config import RunConfig

    defaults: dict[str, Any] = {
        "ckpt_dir": str(ckpt_dir),
        "seed": 0,
        "save_every_steps": 10,
        "max_to_keep": 4,
        "keep_checkpoint_every_n_hours": 0.0,
        "log_every_steps": None,
        "allow_config_change": False,
        "keep_best": False,
        "init_from": None,
    }
    return RunConfig(**{k: changes.pop(k, v) for k, v in defaults.items()})


@pytest.fixture(scope="session")
def linear_config() -> "Callable[..., LinearConfig]":
    """Makes the default config of train_linear.py, for a folder and with changes by name."""
    from train_linear import LinearConfig

    def make(ckpt_dir: Path, **changes: Any) -> LinearConfig:
        run = _run_config(ckpt_dir, changes)
        return LinearConfig(run, **{"train_steps": 300, "learning_rate": 0.5, **changes})

    return make


@pytest.fixture(scope="session")
def cnn_config() -> "Callable[..., CnnConfig]":
    """Makes the default config of train_cnn.py, for a folder and with changes by name."""
    from train_cnn import CnnConfig

    defaults: dict[str, Any] = {
        "data": "ramp",
        "validation_fraction": 0.0,
        "train_steps": None,
        "epochs": None,
        "batch_size": 10,
        "learning_rate": 1e-3,
    }

    def make(ckpt_dir: Path, **changes: Any) -> CnnConfig:
        run = _run_config(ckpt_dir, changes)
        return CnnConfig(run, **{**defaults, **changes})

    return make


@pytest.fixture(scope="session")
def mlp_config() -> "Callable[..., MlpConfig]":
    """Makes the default config of train_mlp.py, for a folder and with changes by name."""
    from train_mlp import MlpConfig

    defaults: dict[str, Any] = {
        "data_dir": "MNIST_data/",
        "train_steps": None,
        "epochs": None,
        "batch_size": 128,
        "learning_rate": 1e-3,
    }

    def make(ckpt_dir: Path, **changes: Any) -> MlpConfig:
        changes = {"save_every_steps": None, "max_to_keep": 5, **changes}
        run = _run_config(ckpt_dir, changes)
        return MlpConfig(run, **{**defaults, **changes})

    return make


@pytest.fixture(scope="session")
def linear_run(
    linear_config: "Callable[..., LinearConfig]", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a default run of train_linear.py."""
    from train_linear import train

    folder = tmp_path_factory.mktemp("linear") / "model"
    assert train(linear_config(folder)).exit_code == 0
    return folder


@pytest.fixture(scope="session")
def cnn_run(
    cnn_config: "Callable[..., CnnConfig]", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a default run of train_cnn.py."""
    from train_cnn import train

    folder = tmp_path_factory.mktemp("cnn") / "model1"
    assert train(cnn_config(folder)).exit_code == 0
    return folder


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
def finetune_config(three_classes: str, tmp_path: Path) -> "Callable[..., FinetuneConfig]":
    """Makes the config of twelve steps of five images on a model, with changes by name."""
    from finetuning.settings import FinetuneConfig

    defaults: dict[str, Any] = {
        "ckpt_dir": tmp_path / "finetuned",
        "save_every_steps": 4,
        "data": three_classes,
        "train_steps": 12,
        "batch_size": 5,
    }

    def make(meta: str | Path, tensor: str, **changes: Any) -> FinetuneConfig:
        given = {**defaults, **changes}
        run = _run_config(given.pop("ckpt_dir"), given)
        return FinetuneConfig(run=run, meta=str(meta), tensor=tensor, **given)

    return make


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
