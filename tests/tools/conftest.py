"""What the tests of the commands share: a command as a user calls it, and models to call it on."""

import importlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from checkpoints.layout import CLASS_NAMES_COLLECTION
from cli.fields import parse
from cli.terminal import EXIT_FAILED, EXIT_USAGE
from errors import UserError
from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from tests.metagraph.made import of_graph
from tests.prediction import stock
from tools.graph_layers import Subject

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


def subject_of(meta: MetaGraphFile | Callable[[], Any], *fetch: str, **options: Any) -> Subject:
    """What is looked at of a meta graph, or of what is built."""
    meta = meta if isinstance(meta, MetaGraphFile) else of_graph(meta)
    return Subject(meta, read_model(meta), fetch, **options)


def variable(name: str, shape: list[int], resource: bool = True) -> tf.Variable:
    initial = np.zeros(shape, np.float32)
    return tf.compat.v1.get_variable(name, initializer=initial, use_resource=resource)


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


def document(tool: Tool, name: str, *arguments: object) -> dict[str, Any]:
    """What a command prints as JSON; its exit code is 1 where that tells of a difference."""
    ended = tool(name, *arguments, "--format=json")
    assert ended.out, ended
    found: dict[str, Any] = json.loads(ended.out)
    assert ended.code == (found.get("differ", False) or not found.get("ok", True))
    return found


@pytest.fixture
def styled() -> Iterator[None]:
    """All pictures are drawn in the style of the tool."""
    from tools.plotting import style

    with style():
        yield


def refused(tool: Tool, *arguments: object, code: int = EXIT_FAILED) -> str:
    """The one line with which a command has to fail."""
    ended = tool(*arguments)
    assert (ended.code, len(ended.err.splitlines())) == (code, 1), ended
    return ended.err


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
