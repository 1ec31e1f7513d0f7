"""Finds the README's two commands: fenced lines that end in `# README command 1` and `2`.

    python .ci/readme_commands.py README.md

prints them, one a line, in the order of their numbers.
"""

import re
import sys
from pathlib import Path

NUMBERS = ("1", "2")

_COMMAND = re.compile(r"(?P<command>\S.*?)\s+# README command (?P<number>\S+)")


def readme_commands(text: str) -> list[str]:
    """Returns the commands in the order of their numbers, without their trailing comments.

    Raises:
        ValueError: a number is missing, is there more than once, or is none of `NUMBERS`.
    """
    found: dict[str, list[str]] = {number: [] for number in NUMBERS}
    for line in _fenced_lines(text):
        match = _COMMAND.fullmatch(line.strip())
        if match:
            found.setdefault(match["number"], []).append(match["command"])
    if wrong := [n for n, commands in found.items() if n not in NUMBERS or len(commands) != 1]:
        expected = ", ".join(NUMBERS)
        raise ValueError(
            f"expected one fenced line ending in '# README command N' for each N of {expected}; "
            + "; ".join(f"found {len(found[n])} for N = {n}" for n in wrong)
        )
    return [found[number][0] for number in NUMBERS]


def _fenced_lines(text: str) -> list[str]:
    lines = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            lines.append(line)
    return lines


def main() -> None:
    """Prints the commands of the file named on the command line."""
    path = sys.argv[1]
    try:
        print("\n".join(readme_commands(Path(path).read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main()
