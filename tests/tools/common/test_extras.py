import sys

import pytest

from errors import ToolError
from tools.command import check_installed


def test_what_is_there_passes() -> None:
    check_installed(["json", "numpy"], "plot", "a picture")


def test_what_is_not_there_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ToolError) as caught:
        check_installed(["json", "matplotlib"], "plot", "a picture")
    text = str(caught.value)
    assert text.startswith("a picture needs the packages of the extra `plot`: ")
    assert "pip install json matplotlib" in text
