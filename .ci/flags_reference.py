"""Writes the reference of all flags, from the commands' own help.

python .ci/flags_reference.py > docs/flags.md
"""

import importlib
import inspect
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from cli.fields import CommandLine  # noqa: E402 (the project is found only now)
from tools.__main__ import TOOLS  # noqa: E402

SCRIPTS = ("train_linear", "train_cnn", "train_mlp", "finetune", "predict")


def flags_reference() -> str:
    """The page, in Markdown."""
    page = (
        "# Flags of every command\n\n"
        "As `--help` prints them. This page is written by the command\n"
        "`python .ci/flags_reference.py > docs/flags.md`.\n"
    )
    for name in (*SCRIPTS, *(f"tools.{tool}" for tool in TOOLS)):
        module = importlib.import_module(name)
        request, *_ = inspect.signature(module.main).parameters.values()
        text = CommandLine(request.annotation, module.__doc__).help()
        described, usage, flags = text.partition("\nusage: ")
        summary = described.partition("\n\n")[0].replace("\n", " ")
        command = f"python -m {name}" if name.startswith("tools.") else f"python {name}.py"
        page += f"\n## {command}\n\n{summary}\n\n```\n{usage.strip()} {flags.strip()}\n```\n"
    return page


if __name__ == "__main__":
    sys.stdout.write(flags_reference())
