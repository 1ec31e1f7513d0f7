"""What counts as a regular expression."""

import pytest

from tools.command import as_pattern


def test_a_pattern() -> None:
    assert as_pattern(r"^conv\d$").search("conv1") is not None


@pytest.mark.parametrize("text", ["(", "a{99999999999}", 9999 * "(" + 9999 * ")"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        as_pattern(text)
