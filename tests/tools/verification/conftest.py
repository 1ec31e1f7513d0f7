"""Checkpoints of a few bytes, in folders that a test may damage."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import tensorflow as tf

from metagraph.parsing import DEFAULT_MAX_BYTES
from metagraph.safety import TimeLimit
from tools.verify_checkpoint import GraphChecks

v1 = tf.compat.v1

SaveAll: TypeAlias = Callable[..., Path]


@pytest.fixture
def ours(linear_run: Path, tmp_path: Path) -> Path:
    """A copy of the folder of a run: my-model-270 to my-model-300."""
    return Path(shutil.copytree(linear_run, tmp_path / "ours"))


@pytest.fixture
def graphs() -> GraphChecks:
    return GraphChecks(DEFAULT_MAX_BYTES, TimeLimit())


@pytest.fixture
def stock(tmp_path: Path) -> SaveAll:
    """Saves a variable `w` under some names with a stock Saver; returns the folder."""

    def save_all(*names: str, **saver_options: object) -> Path:
        (tmp_path / "stock").mkdir(exist_ok=True)
        with tf.Graph().as_default(), v1.Session() as session:
            v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
            saver = v1.train.Saver(**saver_options)
            session.run(v1.global_variables_initializer())
            for name in names:
                saver.save(session, f"{tmp_path}/stock/{name}")
        return tmp_path / "stock"

    return save_all
