"""The documents: short enough, their links lead somewhere, and the flags are those of the code."""

import re
from pathlib import Path

import pytest

from flags_reference import flags_reference
from tools.__main__ import TOOLS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [
    path.relative_to(PROJECT).as_posix()
    for path in sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _anchors(page: Path) -> set[str]:
    """What a code host makes of the headings: lower case, no punctuation, dashes for blanks."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", _text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_can_be_read_in_minutes() -> None:
    assert len(_text(PROJECT / "README.md")) <= 13_000


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = PROJECT / name
    for link in _LINK.findall(_FENCED.sub("", _text(page))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("name", sorted({*PAGES} - {"BUILD.md"}))
def test_lines_fit_a_screen(name: str) -> None:
    assert [line for line in _text(PROJECT / name).splitlines() if len(line) > 120] == []


def test_each_page_and_each_tool_can_be_found() -> None:
    contents = _text(PROJECT / "docs/README.md")
    names = {page.name for page in PROJECT.glob("docs/*.md")} - {"README.md"}
    assert {*_LINK.findall(contents)} >= names
    for tool in TOOLS:
        assert f"| `{tool}` |" in _text(PROJECT / "README.md")
        assert f"## {tool}\n" in _text(PROJECT / "docs/tools.md")


def test_the_reference_has_the_flags_of_the_code() -> None:
    """If not: `python .ci/flags_reference.py > docs/flags.md`."""
    assert _text(PROJECT / "docs/flags.md") == flags_reference()


def test_the_keys_of_json_are_those_of_the_code() -> None:
    keys = {*re.findall(r"`([a-z_]+)`", _text(PROJECT / "docs/json.md"))} - {"null"}
    code = "".join(_text(path) for path in PROJECT.glob("[!.t]*/*.py"))
    code += "".join(_text(path) for path in PROJECT.glob("t[!e]*/*.py"))  # All but tests.
    assert len(keys) > 100
    assert [key for key in sorted(keys) if not re.search(rf'"{key}"|\b{key}:', code)] == []
