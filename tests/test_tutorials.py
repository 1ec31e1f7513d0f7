"""The tutorials in docs/: each command of a page runs as it stands there, one after another."""

import importlib
import io
import json
import re
import shlex
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from cli.fields import parse
from tests import runs
from tests.tools.conftest import request_of

PROJECT = Path(__file__).resolve().parent.parent
_TOPICS = 13  # of the classic tutorials
_COMMAND = re.compile(r"^ *(python (?!-m pytest).*)$", re.MULTILINE)


def _commands(page: str) -> list[str]:
    """The command lines in a page's fenced blocks."""
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    return [line for block in text.split("```")[1::2] for line in _COMMAND.findall(block)]


def _run(command: str) -> int:
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    name = arguments.pop(0) if script == "-m" else script.removesuffix(".py")
    module = importlib.import_module(name)
    return int(module.main(parse(request_of(module.main), [name, *arguments])) or 0)


def _run_all(page: str, folder: Path) -> None:
    """Runs a page's commands in a folder; each has to print something and end well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for command in _commands(page):
            with redirect_stdout(io.StringIO()) as out:
                assert _run(command) == 0, command
            assert out.getvalue().strip(), command


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    assert len(_commands("tutorial.md")) == 16
    _run_all("tutorial.md", tmp_path)
    assert tf.train.latest_checkpoint(str(tmp_path / "model1")) == f"{tmp_path}/model1/my-model-200"
    saved = tf.saved_model.load(str(tmp_path / "exported/1"))
    assert {*saved.signatures} == {"serving_default", "serving_bytes"}


def test_each_topic_of_the_classic_tutorials_has_a_command_that_runs(tmp_path: Path) -> None:
    assert len(_commands("from_tf1_tutorials.md")) == _TOPICS
    _run_all("from_tf1_tutorials.md", tmp_path)
    resumed = f"{tmp_path}/model/my-model-310"
    assert tf.train.latest_checkpoint(f"{tmp_path}/model") == resumed
    renamed, trained, tuned, base = (
        tf.train.load_checkpoint(f"{tmp_path}/{prefix}")
        for prefix in ("renamed/line", "model", "finetuned", "model1")
    )
    assert [*renamed.get_variable_to_shape_map()] == ["weight"]
    assert renamed.get_tensor("weight").tobytes() == trained.get_tensor("w").tobytes()
    assert "head/w" in tuned.get_variable_to_shape_map()
    assert tuned.get_tensor("conv1/w").tobytes() == base.get_tensor("conv1/w").tobytes()
    text = (tmp_path / "graph.pbtxt").read_text()
    assert text_format.Parse(text, MetaGraphDef()) == runs.meta_graph(resumed)
    for file, scope in (("frozen.pb", ""), ("imported.pb", "imported/")):
        graph_def = tf.compat.v1.GraphDef.FromString((tmp_path / file).read_bytes())
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(graph_def, name="")
            y = session.run(f"{scope}y:0", {f"{scope}x:0": [0.0, 1.0]})
        np.testing.assert_allclose(y, [0.2, 0.3], atol=1e-4)


def test_the_notebook_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells one after another, and their output but for digits that a processor may change."""
    cells = json.loads((PROJECT / "docs/tour.ipynb").read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(PROJECT / "docs")
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: str(tmp_path))
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    space: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            capsys.readouterr()
            exec("".join(cell["source"]), space)
            told = "".join(text for output in cell["outputs"] for text in output["text"])
            digits = re.compile(r" *\d+\.\d+ *")
            assert digits.sub("0", capsys.readouterr().out) == digits.sub("0", told)
