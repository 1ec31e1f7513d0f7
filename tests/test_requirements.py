import re
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

from readme_commands import readme_commands

PROJECT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.txt"
DEV = "requirements-dev.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

ADDRESS_OR_PATH = re.compile(r"://|file:|index-url|find-links| @ |(?:^|[\s=])[/~\\]")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Pin(NamedTuple):
    requirement: Requirement
    hashes: frozenset[str]


def _read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def _lines(name: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", _read(name)).splitlines()


def _pins(name: str) -> list[Pin]:
    """The pins of a file; a line of any other kind is an error."""
    lines = [line for line in _lines(name) if not line.startswith("#")]
    if name == DEV:
        lines.remove(f"-r {RUNTIME}")
    split = [re.split(r"\s+(?=--)", line) for line in lines]
    return [Pin(Requirement(asked), frozenset(hashes)) for asked, *hashes in split]


def _pins_for(name: str, python: str) -> dict[str, Pin]:
    """The pins that hold on Linux with this Python, by package."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    environment |= {"sys_platform": "linux", "platform_python_implementation": "CPython"}
    markers = [(pin, pin.requirement.marker) for pin in _pins(name)]
    chosen = [pin for pin, marker in markers if marker is None or marker.evaluate(environment)]
    by_name = {pin.requirement.name: pin for pin in chosen}
    assert len(by_name) == len(chosen), "a package is pinned twice"
    return by_name


@pytest.mark.parametrize("name", [RUNTIME, DEV])
def test_every_pin_is_exact_and_hashed_and_of_no_address_or_path_of_a_machine(name: str) -> None:
    assert [line for line in _lines(name) if ADDRESS_OR_PATH.search(line)] == []
    pins = _pins(name)
    assert pins
    for pin in pins:
        assert re.fullmatch(r"==[^*,]+", str(pin.requirement.specifier)), pin.requirement
        assert pin.hashes, pin.requirement
        assert all(HASH.fullmatch(option) for option in pin.hashes), pin.requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_dev_file_agrees_with_runtime_file(python: str) -> None:
    runtime, dev = _pins_for(RUNTIME, python), _pins_for(DEV, python)
    shared = runtime.keys() & dev.keys()
    assert {name: runtime[name] for name in shared} == {name: dev[name] for name in shared}


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_are_what_the_project_asks_for(python: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads(_read("pyproject.toml"))
    pins = _pins_for(RUNTIME, python) | _pins_for(DEV, python)
    asked_for = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for asked in asked_for + project["project"]["optional-dependencies"]["tensorflow"]:
        requirement = Requirement(asked)
        (pin,) = pins[requirement.name].requirement.specifier
        assert pin.version in requirement.specifier, asked


def test_readme_has_both_commands_in_the_order_of_their_numbers() -> None:
    assert readme_commands(_read("README.md")) == [
        "pip install -r requirements.txt && python train_cnn.py --ckpt_dir=model1",
        "pip install -r requirements-dev.txt && python -m pytest",
    ]
    text = "```sh\nb && c   # README command 2\nother\n  a   # README command 1\n```\n"
    assert readme_commands(text) == ["a", "b && c"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```\na # README command 1\n```\n", "found 0 for N = 2"),
        ("a # README command 1\n```\nb # README command 2\n```\n", "found 0 for N = 1"),
        ("```\na # README command 1\nb # README command 2\nc # README command 2\n```", "found 2"),
        ("```\na # README command 1\nb # README command 2\nc # README command 3\n```", "N = 3"),
    ],
    ids=["missing", "outside_a_fence", "twice", "unknown_number"],
)
def test_readme_commands_refuses(text: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        readme_commands(text)
