"""The commands that look at a checkpoint, on a fine-tuned network."""

from collections.abc import Callable
from pathlib import Path

import finetune
from finetuning.settings import FinetuneConfig
from tests.tools.conftest import Tool, document


def test_a_fine_tuned_network_is_looked_at(
    finetune_config: Callable[..., FinetuneConfig], cnn_run: Path, tool: Tool
) -> None:
    prefix = Path(finetune.train(finetune_config(cnn_run, "Relu:0")).prefix)
    roles: dict[str, set[str]] = {}
    for tensor in document(tool, "inspect_checkpoint", prefix)["tensors"]:
        roles.setdefault(tensor["role"], set()).add(tensor["key"])
    assert roles["model"] == {f"{s}/{v}" for s in ("conv1", "conv2", "fc1", "head") for v in "wb"}
    scopes = {"conv1", "conv2", "fc1", "head", "beta1_power", "beta2_power"}
    assert {key.partition("/")[0] for key in roles["slot"]} <= scopes
    assert set.union(*roles.values()) == roles["model"] | roles["slot"] | {"global_step"}
    assert document(tool, "inspect_checkpoint", prefix.parent)["newest"] == prefix.name
    assert document(tool, "verify", prefix.parent)["ok"]
    assert not document(tool, "diff", prefix.parent, prefix)["differ"]
