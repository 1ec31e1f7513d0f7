"""Lists the tools, each with a line on what it does, or runs one: python -m tools."""

import importlib
import os
import runpy
import sys

TOOLS = (
    "inspect_checkpoint",
    "inspect_graph",
    "verify",
    "diff",
    "freeze",
    "export",
    "edit",
    "plot",
    "report",
)
SCRIPTS = ("predict", "finetune", "train_linear", "train_cnn", "train_mlp")
_PROGRAM = "tf-graph-trainer"  # What it is called where it is installed.


def main() -> None:
    """Prints the list, or runs the tool or the script that the first argument names."""
    # Installed, all of ours is one package, whose folder is what a checkout is.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    is_installed = __name__ != "__main__"
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in (*TOOLS, *SCRIPTS):
        del sys.argv[1]
        module = f"tools.{name}" if name in TOOLS else name
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    if name not in ("", "-h", "--help"):
        print(
            f"{_PROGRAM}: error: there is no {name!r}; without it, all are listed", file=sys.stderr
        )
        sys.exit(2)
    command = f"{_PROGRAM} <name>" if is_installed else "python -m tools.<name>"
    print(f"{command}, with --help for more:\n")
    for tool in TOOLS:
        described = importlib.import_module(f"tools.{tool}").__doc__ or ""
        print(f"  {tool:20}{described.partition(chr(10))[0]}".rstrip())


if __name__ == "__main__":
    main()
