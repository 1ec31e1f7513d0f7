"""The commands that look at a checkpoint, on a fine-tuned network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import finetune
from finetuning.settings import FinetuneConfig
from tests.tools.conftest import Tool


def test_a_fine_tuned_network_is_looked_at(
    finetune_config: Callable[..., FinetuneConfig], cnn_run: Path, tool: Tool
) -> None:
    prefix = Path(finetune.train(finetune_config(cnn_run, "Relu:0")).prefix)

    def document(name: str, *arguments: object) -> dict[str, Any]:
        ended = tool(name, *arguments, "--format=json")
        assert ended.code == 0, ended
        found: dict[str, Any] = json.loads(ended.out)
        return found

    roles: dict[str, set[str]] = {}
    for tensor in document("inspect_checkpoint", prefix)["tensors"]:
        roles.setdefault(tensor["role"], set()).add(tensor["key"])
    assert roles["model"] == {f"{s}/{v}" for s in ("conv1", "conv2", "fc1", "head") for v in "wb"}
    scopes = {"conv1", "conv2", "fc1", "head", "beta1_power", "beta2_power"}
    assert {key.partition("/")[0] for key in roles["slot"]} <= scopes
    assert set.union(*roles.values()) == roles["model"] | roles["slot"] | {"global_step"}
    assert document("inspect_checkpoint", prefix.parent)["newest"] == prefix.name
    checkpoints = document("verify", prefix.parent)["checkpoints"]
    assert prefix.name in {checkpoint["name"] for checkpoint in checkpoints}
    assert not document("diff", prefix.parent, prefix)["differ"]
