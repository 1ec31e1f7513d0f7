"""The commands that look at a checkpoint, on a perceptron and on a fine-tuned network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finetune
from finetuning.settings import FinetuneConfig
from tests.data.idx_files import write_mnist
from tests.tools.conftest import Tool
from train_mlp import MlpConfig
from train_mlp import train as train_mlp


@pytest.fixture
def perceptron(mlp_config: Callable[..., MlpConfig], tmp_path: Path) -> str:
    data = write_mnist(tmp_path / "MNIST_data", 100, 20)
    config = mlp_config(tmp_path / "run", data_dir=str(data), batch_size=16, epochs=2.0)
    return train_mlp(config).prefix


@pytest.fixture
def fine_tuned(finetune_config: Callable[..., FinetuneConfig], cnn_run: Path) -> str:
    return finetune.train(finetune_config(cnn_run, "Relu:0")).prefix


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("perceptron", {"w_h", "w_h2", "w_o"}),
        ("fine_tuned", {f"{at}/{v}" for at in ("conv1", "conv2", "fc1", "head") for v in "wb"}),
    ],
)
def test_it_is_looked_at(
    model: str, parameters: set[str], tool: Tool, request: pytest.FixtureRequest
) -> None:
    prefix: str = request.getfixturevalue(model)
    folder = Path(prefix).parent

    def document(name: str, *arguments: object) -> dict[str, Any]:
        ended = tool(name, *arguments, "--format=json")
        assert ended.code == 0, ended
        found: dict[str, Any] = json.loads(ended.out)
        return found

    roles: dict[str, set[str]] = {}
    for tensor in document("inspect_checkpoint", prefix)["tensors"]:
        roles.setdefault(tensor["role"], set()).add(tensor["key"])
    assert roles["model"] == parameters
    scopes = {name.partition("/")[0] for name in parameters} | {"beta1_power", "beta2_power"}
    assert {key.partition("/")[0] for key in roles["slot"]} <= scopes
    assert set.union(*roles.values()) == parameters | roles["slot"] | {"global_step"}
    assert document("inspect_checkpoint", folder)["newest"] == Path(prefix).name
    assert {c["name"] for c in document("verify", folder)["checkpoints"]} >= {Path(prefix).name}
    assert not document("diff", folder, prefix)["differ"]
