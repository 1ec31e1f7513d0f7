"""What every command says, word for word, as tests/transcripts/ has it.

A transcript is a list of command lines (`$ `, continued with `> `), each with its exit code, its
stdout and its stderr (`! `). It is the table of what is run, too: TRANSCRIPTS=write writes the
files anew from the command lines in them. What differs from run to run is masked, and a number with
a fraction may differ a little, as another processor's may.
"""

import difflib
import json
import math
import os
import re
import socket

import pytest

from tests.conftest import PROJECT, as_with_onednn, run_python

FOLDER = PROJECT / "tests" / "transcripts"
FIRST = "models"  # What it leaves is what the others begin with.
NAMES = [FIRST, *sorted({path.stem for path in FOLDER.glob("*.txt")} - {FIRST})]

_MASKS = (
    (re.compile(r"[\d,]+ (images|points|digits|examples)/s +[\d:]+ left"), r"N \1/s  T left"),
    (re.compile(rf"process \d+ on {re.escape(socket.gethostname())}"), "process N on HOST"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{8}(?=\.\.\.)"), "SHA256"),
    (re.compile(r"stored \d+, of what was read \d+"), "stored N, of what was read N"),
    (re.compile(r"\b(x86_64|aarch64|arm64|AMD64)\b"), "MACHINE"),
    (re.compile(r"\b(avx2|asimd)[a-z0-9_ ]*\b"), "PROCESSOR"),
    (re.compile(r"(checkpoints?), [\d.]+ KiB"), r"\1, SIZE"),  # A manifest says the processor.
    (re.compile(r"^! [IWE]\d{4} .*\n", re.MULTILINE), ""),  # TensorFlow's own log
    # When it was saved, and the size of files of which one has that time in digits.
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC( +[\d.]+ [KM]?i?B\b)?"), "DATE"),
    (re.compile(r"\b1[6-9]\d{8}(\.\d+)?\b(, \"bytes\": \d+)?"), "TIME"),
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)")


def _commands(transcript: str) -> list[str]:
    found: list[str] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif line.startswith("> "):
            found[-1] += f"\n{line[2:]}"
    return found


def _transcript(command: str, code: int, out: str, err: str, folder: str) -> str:
    """One command and what came of it, masked."""
    text = "".join(f"  {line}".rstrip() + "\n" for line in out.splitlines())
    text += "".join(f"! {line}".rstrip() + "\n" for line in err.splitlines())
    text = as_with_onednn(text).replace(folder, "FOLDER").replace(str(PROJECT), "PROJECT")
    for pattern, masked in _MASKS:
        text = pattern.sub(masked, text)
    text = _NUMBER.sub(lambda number: _short(number[0]), text)
    shown = command.replace("\n", "\n> ")
    return f"$ {shown}\n{text}= {code}\n"


def _short(number: str) -> str:
    return number if number.lstrip("-").isdigit() else f"{float(number):.3g}"


def _same(one: str, other: str) -> bool:
    """Whether two lines have the same words, but for the width of columns and the last digits."""
    ours, theirs = (re.sub(r"(?<=\S) +", " ", x).replace(" ]", "]") for x in (one, other))
    if _NUMBER.sub("#", ours) != _NUMBER.sub("#", theirs):
        return False
    pairs = zip(_NUMBER.findall(ours), _NUMBER.findall(theirs), strict=True)
    return all(a == b or _close(a, b) for a, b in pairs)


def _close(one: str, other: str) -> bool:
    """Whether two numbers, not both whole, are nearly the same."""
    is_whole = (one + other).replace("-", "").isdigit()
    return not is_whole and math.isclose(float(one), float(other), rel_tol=0.02, abs_tol=1e-5)


def test_what_counts_as_the_same() -> None:
    assert _same("  loss  0.1234 [1.5 ]", "  loss 0.1235    [1.5]")
    for other in (
        "  loss  0.13 of 3",
        "  loss  0.1234 of 4",
        "  lost  0.1234 of 3",
        "  loss  0.1234",
    ):
        assert not _same("  loss  0.1234 of 3", other)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> the transcript as it comes out now."""
    folder = str(tmp_path_factory.mktemp("transcripts"))
    scenes = {name: _commands((FOLDER / f"{name}.txt").read_text("utf-8")) for name in NAMES}
    given = json.dumps({"folder": folder, "scenes": scenes})
    ended = run_python("tests/player.py", input=given, timeout=1100)
    assert ended.returncode == 0, ended.stderr
    found = {}
    for name, plays in json.loads(ended.stdout).items():
        parts = zip(scenes[name], plays, strict=True)
        found[name] = "\n".join(
            _transcript(command, code, out, err, f"{folder}/{name}")
            for command, (code, out, err) in parts
        )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_command_says_what_it_said(name: str, played: dict[str, str]) -> None:
    path = FOLDER / f"{name}.txt"
    if os.environ.get("TRANSCRIPTS") == "write":
        path.write_text(played[name], "utf-8")
    expected, found = (text.splitlines() for text in (path.read_text("utf-8"), played[name]))
    if len(expected) != len(found) or not all(map(_same, expected, found)):
        pairs = zip(expected, found, strict=False)
        kept = [new if _same(old, new) else old for old, new in pairs] + expected[len(found) :]
        pytest.fail("\n".join(difflib.unified_diff(kept, found, f"{path.name}, committed", "now")))
