"""All pictures of these tests are drawn in the style of the tool."""

from collections.abc import Iterator

import pytest

from tools.plotting import style


@pytest.fixture(autouse=True)
def _styled() -> Iterator[None]:
    with style():
        yield
