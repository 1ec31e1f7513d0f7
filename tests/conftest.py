"""What every test may use: the real data, and a finished run of each model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from absl import logging

if TYPE_CHECKING:
    from train_cnn import CnnConfig
    from train_linear import LinearConfig
    from training.config import RunConfig

PROJECT = Path(__file__).resolve().parent.parent


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


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
