"""Lists the tools, each with a line on what it does: python -m tools."""

import importlib

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


def main() -> None:
    """Prints the list."""
    print("python -m tools.<name>, with --help for more:\n")
    for name in TOOLS:
        described = importlib.import_module(f"tools.{name}").__doc__ or ""
        print(f"  {name:20}{described.partition(chr(10))[0]}".rstrip())


if __name__ == "__main__":
    main()
