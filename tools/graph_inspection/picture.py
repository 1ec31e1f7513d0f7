"""A drawing as a PNG, by Graphviz's program `dot`."""

import shutil
import subprocess

from tools.common.errors import ToolError

PROGRAM = "dot"
_SECONDS = 120.0
_PNG = b"\x89PNG\r\n\x1a\n"


def draw_png(text: str, seconds: float = _SECONDS) -> bytes:
    """Runs `dot` on a graph in its language.

    Args:
      text: the graph; it comes in by a pipe, and names no file.
      seconds: what the program may take.

    Raises:
      ToolError: it is not installed, takes too long, or fails.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ToolError(
            "--png needs Graphviz's program 'dot', which is not installed: get it with 'apt-get "
            "install graphviz' or 'brew install graphviz', or write its text with --dot=file.dot"
        )
    try:
        ended = subprocess.run(  # noqa: S603 (no shell, and no argument is of a file)
            [program, "-Tpng"],
            input=text.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{PROGRAM} takes longer than {seconds:g} seconds: draw fewer layers with --depth=1, "
            "or write its text with --dot=file.dot"
        ) from error
    if ended.returncode or not ended.stdout.startswith(_PNG):
        reason = ended.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise ToolError(
            f"{PROGRAM} fails with exit code {ended.returncode}: {reason or 'it wrote no PNG'}"
        )
    return ended.stdout
