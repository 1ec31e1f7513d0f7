"""The file that a command writes: whether it may be, before a long run."""

from collections.abc import Sequence

from data import files
from prediction.output_file import check_output
from tools.common.errors import ToolError


def check_target(path: str, given: Sequence[str], *, overwrite: bool, flag: str = "output") -> None:
    """Finds out whether a file can be written; leaves no trace.

    Args:
      path: of the file; its folder is made where it is missing.
      given: what is read, as of `check_output`.
      overwrite: whether there may be such a file already.
      flag: that names the file.

    Raises:
      DataError: the file system cannot tell.
      PredictionError: it cannot be written, or is read too.
      ToolError: it is there already.
    """
    check_output(path, given, flag)
    if files.exists(path) and not overwrite:
        raise ToolError(f"--{flag}={path} is there already; --overwrite replaces it")
