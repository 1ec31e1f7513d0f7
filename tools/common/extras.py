"""Packages that only some commands need, and that need not be installed."""

import importlib
from collections.abc import Sequence

from tools.common.errors import ToolError


def check_installed(packages: Sequence[str], extra: str, what: str) -> None:
    """Sees that packages can be imported.

    Args:
      packages: their names, under which they are also installed.
      extra: of `pyproject.toml`, that names them.
      what: needs them, such as `an export to ONNX`.

    Raises:
      ToolError: one cannot; the message says how to install them.
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise ToolError(
            f"{what} needs the packages of the extra `{extra}`: pip install {' '.join(packages)} "
            f"({error})"
        ) from error
