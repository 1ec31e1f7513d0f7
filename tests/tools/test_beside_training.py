"""Commands on a folder that is trained into, or that holds what is nothing of theirs."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from checkpoints import folder, lock
from checkpoints.bundle import VariableSpec
from finetuning import FinetuneConfig
from finetuning.fitting import make_task
from prediction.evaluation import predict
from prediction.request import PredictConfig
from tests.tools.conftest import Tool
from tools.plotting import read_line_run
from training.config import InitFrom
from training.resume import read_init_from

COMMANDS = {
    "diff": ["{run}", "{run}"],
    "edit": ["{run}", "--output={out}/new"],
    "freeze": ["{run}", "--output={out}/new.pb"],
    "inspect_checkpoint": ["{run}", "--stats"],
    "inspect_graph": ["{run}"],
    "verify": ["{run}"],
}
SPECS = {name: VariableSpec((1,), "float32") for name in ("w", "b")}


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prefix of the checkpoint that is deleted just before a reader holds it."""
    hold, deleted = lock._hold, list[str]()

    def too_late(locks: ExitStack, held: list[str], prefix: str) -> None:
        if not deleted:
            deleted.append(prefix)
            path, name = os.path.split(prefix)
            folder.delete_checkpoint(path, int(name.rpartition("-")[2]))
        hold(locks, held, prefix)

    monkeypatch.setattr(lock, "_hold", too_late)
    return deleted


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"verify"}))
def test_a_command_reads_what_is_the_newest_by_then(
    name: str, run: Path, tmp_path: Path, tool: Tool, gone: list[str]
) -> None:
    ended = tool(name, *(text.format(run=run, out=tmp_path) for text in COMMANDS[name]))
    assert gone == [f"{run}/my-model-300"]
    assert ended.code == 0, ended


def test_values_to_begin_with_and_pictures_do_so_too(run: Path, gone: list[str]) -> None:
    origins = read_init_from(InitFrom(str(run)), SPECS).origins
    assert origins == dict.fromkeys(SPECS, f"{run}/my-model-290")
    gone.clear()
    assert read_line_run(str(run)).steps[-1] == 280


def test_fine_tuning_does_so_too(
    cnn_run: Path,
    tmp_path: Path,
    finetune_config: Callable[..., FinetuneConfig],
    gone: list[str],
) -> None:
    path = Path(shutil.copytree(cnn_run, tmp_path / "base"))
    task = make_task(finetune_config(path, "fc2/add:0"))
    assert gone == [f"{path}/my-model-200"]
    shutil.rmtree(path)  # Its values have been read.
    assert task.initial_values is not None
    assert task.initial_values().origins["conv1/w"] == f"{path}/my-model-190"


@pytest.mark.parametrize("name", COMMANDS)
def test_names_that_are_not_utf_8_are_passed_over(
    name: str, run: Path, tmp_path: Path, tool: Tool
) -> None:
    Path(os.fsdecode(bytes(run) + b"/\xff\xfe.index")).mkdir()
    ended = tool(name, *(text.format(run=run, out=tmp_path) for text in COMMANDS[name]))
    assert ended.code == 0, ended
    assert predict(PredictConfig(str(run), fetch=["global_step"]))
