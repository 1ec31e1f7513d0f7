"""The house stays one that can be read: files, lines, names. What grows makes room elsewhere."""

import ast
from collections import Counter
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).resolve().parent.parent
MOST_FILES, MOST_LINES, MOST_TEST_LINES = 104, 26_000, 24_200
LONGEST, SHORTEST = 450, 60  # Lines of a file.
LONGEST_FUNCTION, MEDIAN_FUNCTION = 62, 20  # Lines, docstrings included.
# The smallest model, and two scripts.
SHORT = {"models/linear.py", "predict.py", "tools/__main__.py"}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


TESTS = sorted(PROJECT.glob("tests/**/*.py"))
PRODUCT = [
    path
    for path in sorted([*PROJECT.glob("*.py"), *PROJECT.glob("[!.]*/**/*.py")])
    if not _name(path).startswith(("tests/", "venv/", "build/"))
]


def test_there_are_no_more_files_and_lines_than_can_be_read() -> None:
    assert len(PRODUCT) <= MOST_FILES
    assert sum(map(_lines, PRODUCT)) <= MOST_LINES
    assert sum(map(_lines, TESTS)) <= MOST_TEST_LINES


def test_a_file_is_one_job() -> None:
    files = {_name(path): _lines(path) for path in PRODUCT if path.name != "__init__.py"}
    assert {name: n for name, n in files.items() if n > LONGEST} == {}
    assert {name for name, n in files.items() if n < SHORTEST} <= SHORT
    assert {*files} >= SHORT


def test_a_name_is_one_file() -> None:
    names = Counter(path.name for path in PRODUCT if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_functions_are_of_one_screen() -> None:
    lengths = {
        f"{_name(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert median(lengths.values()) < MEDIAN_FUNCTION
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}
