"""What the tests of the commands share: a command as a user calls it, and models to call it on."""

import importlib
import inspect
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from absl import flags
from PIL import Image

from checkpoints.naming import CLASS_NAMES_COLLECTION
from cli.fields import parse
from cli.terminal import EXIT_FAILED, EXIT_USAGE
from errors import UserError
from tests.prediction import stock

NAMES = ["plane", "car", "bird", "cat"]


class Ended(NamedTuple):
    """How a command ended: its exit code, its stdout, and its stderr (of an error, the line)."""

    code: int
    out: str
    err: str


def write_class_folders(
    folder: Path, names: Sequence[str], count: int, suffix: str = ".png"
) -> None:
    """Random images, so many a class, in a folder a class."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")


Tool: TypeAlias = Callable[..., Ended]


def request_of(main: Callable[..., object]) -> type[Any]:
    """The dataclass that a command's `main` takes."""
    first, *_ = inspect.signature(main).parameters.values()
    assert isinstance(first.annotation, type)
    return first.annotation


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Calls `python -m tools.<name> <arguments>` in this process, as `cli.run` does."""

    def call(name: str, *arguments: object) -> Ended:
        module = importlib.import_module(f"tools.{name}")
        capsys.readouterr()
        given = [f"{name}.py", *map(str, arguments)]
        try:
            code = module.main(parse(request_of(module.main), given)) or 0
        except flags.Error as error:
            return Ended(EXIT_USAGE, "", str(error))
        except (UserError, OSError) as error:
            return Ended(EXIT_FAILED, capsys.readouterr().out, str(error))
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def named(cnn_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.meta` of a default CNN whose classes have names."""
    folder = tmp_path_factory.mktemp("named")
    for suffix in (".meta", ".index", ".data-00000-of-00001"):
        shutil.copyfile(f"{cnn_run}/my-model-200{suffix}", f"{folder}/named{suffix}")
    names = [name.encode() for name in NAMES]
    stock.edit_meta(
        folder / "named.meta",
        lambda m: m.collection_def[CLASS_NAMES_COLLECTION].bytes_list.value.extend(names),
    )
    return folder / "named.meta"
