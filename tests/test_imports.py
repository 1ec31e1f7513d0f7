"""Imports go one way, and importing a script has no effect."""

import ast
from pathlib import Path

import pytest

from tests.conftest import PROJECT, run_python

ALLOWED = {
    "errors.py": set(),
    "file_io.py": set(),
    "cli": set(),
    "models": set(),
    "data": {"file_io"},
    "checkpoints": {"file_io"},
    "metagraph": {"checkpoints", "file_io"},
    "prediction": {"cli", "metagraph", "checkpoints", "data", "file_io"},
    "training": {"checkpoints", "metagraph", "cli", "data", "file_io"},
    "finetuning": {"checkpoints", "cli", "data", "metagraph", "models", "prediction", "training"},
    "finetune.py": {"checkpoints", "cli", "data", "finetuning", "metagraph", "training"},
    "tools": {"checkpoints", "cli", "data", "file_io", "metagraph", "prediction", "training"},
    "predict.py": {"checkpoints", "cli", "data", "metagraph", "prediction"},
    "train_*.py": {"checkpoints", "cli", "data", "models", "training"},
}
OURS = {owner for owner in ALLOWED if "." not in owner} | {"errors", "file_io", "benchmarks"}
SCRIPTS = sorted(path.name for path in PROJECT.glob("*.py") if path.stem not in OURS)
TOOLS = [
    f"tools.{path.stem}"
    for path in sorted(PROJECT.glob("tools/[!_]*.py"))
    if '__name__ == "__main__"' in path.read_text()
]


def _imported(path: Path) -> set[str]:
    """The top-level packages of ours that a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found & OURS


def _files(owner: str) -> list[Path]:
    return [*PROJECT.glob(owner)] if "." in owner else sorted(PROJECT.glob(f"{owner}/**/*.py"))


@pytest.mark.parametrize("owner", ALLOWED)
def test_no_arrow_points_the_wrong_way(owner: str) -> None:
    files = _files(owner)
    assert files
    allowed = ALLOWED[owner] | {owner, "errors"}
    wrong = {str(path.relative_to(PROJECT)): _imported(path) - allowed for path in files}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_every_package_and_script_has_a_rule() -> None:
    scripts = {path.name for path in PROJECT.glob("*.py")}
    packages = {path.parent.name for path in PROJECT.glob("[!.]*/*.py")} - {"tests"}
    ruled = {path.name for owner in ALLOWED for path in PROJECT.glob(owner)}
    assert scripts | packages == ruled | ({"benchmarks"} & packages)


@pytest.mark.parametrize("script", [*SCRIPTS, *TOOLS])
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--no_such_flag", 2)])
def test_help_and_bad_flags_need_no_tensorflow(script: str, flag: str, code: int) -> None:
    """Of what takes long, nothing is imported: the interpreter lists all that is."""
    started = [script] if script in SCRIPTS else ["-m", script]
    ended = run_python("-X", "importtime", *started, flag)
    assert ended.returncode == code
    assert "absl.flags" in ended.stderr
    assert not {"tensorflow", "numpy", "PIL", "matplotlib", "onnx"} & {
        line.split("|")[-1].strip() for line in ended.stderr.splitlines()
    }


@pytest.mark.parametrize("script", [*SCRIPTS, *TOOLS])
def test_before_all_else_a_script_says_what_a_signal_does(script: str) -> None:
    path = PROJECT / (script if script in SCRIPTS else script.replace(".", "/") + ".py")
    _, first, *_ = ast.parse(path.read_text()).body
    lines = ["from cli.signals import end_at_signals", "end_at_signals()"]
    assert ast.unparse(first).split("\n    ") == ["if __name__ == '__main__':", *lines]


@pytest.mark.parametrize("script", ["train_linear.py", "-mtools.diff"])
def test_help_without_docstrings_lists_the_flags(script: str) -> None:
    ended = run_python("-OO", script, "--help", check=True)
    assert "\n  --format: " in ended.stdout or "\n  --ckpt_dir: " in ended.stdout


@pytest.mark.parametrize("script", [*SCRIPTS, *TOOLS])
def test_importing_a_script_defines_no_flag_and_loads_no_tensorflow(script: str) -> None:
    module = script.removesuffix(".py")
    check = (
        f"import sys, {module}; from absl import flags; "
        "assert 'tensorflow' not in sys.modules; "
        f"assert not flags.FLAGS.flags_by_module_dict().get('{module}')"
    )
    run_python("-c", check, check=True)


def test_the_list_of_tools_has_each_with_a_line() -> None:
    ended = run_python("-m", "tools", check=True)
    listed = [line.split(maxsplit=1) for line in ended.stdout.splitlines()[2:]]
    assert sorted(f"tools.{name}" for name, _ in listed) == TOOLS
    assert all(said.endswith((".", ":")) for _, said in listed)
