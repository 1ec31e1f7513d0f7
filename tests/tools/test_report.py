"""The report: what stands in it, that no name is markup, and that a browser shows it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.prediction import stock
from tests.tools.conftest import Tool, write_class_folders
from train_cnn import CnnConfig, train

CLASSES = ["<script>alert(1)<b>", "a&b", "\"quoted'"]
_ALLOWED = {"html", "head", "meta", "title", "style", "body", "main", "article", "section", "nav"}
_ALLOWED |= {"h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "a", "div", "span", "strong", "img"}
_ALLOWED |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary"}


class _Page(HTMLParser):
    """The tags of a page, its headings and all of its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(cnn_config: Callable[..., CnnConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of classes whose names are markup."""
    folder = tmp_path_factory.mktemp("report")
    write_class_folders(folder / "images", CLASSES, 6)
    given = {"data": str(folder / "images"), "batch_size": 4, "train_steps": 8}
    train(cnn_config(folder / "run", log_every_steps=2, save_every_steps=4, **given))
    return folder


def test_it_has_every_section_and_no_name_is_markup(tool: Tool, run: Path) -> None:
    output = run / "report.html"
    images = f"--input={run}/images"
    ended = tool(
        "report", run / "run", images, f"--output={output}", "--format=json", "--overwrite"
    )
    assert ended.code == 0, ended.err
    content = output.read_bytes()
    record = json.loads(ended.out)
    assert record == {
        "output": str(output),
        "bytes": len(content),
        "runs": [{"path": str(run / "run"), "failed": {}, "damaged": []}],
    }
    assert len(content) < 2_000_000
    page = _Page(content.decode())
    assert page.tags <= _ALLOWED
    assert not [name for name in page.attributes if name.startswith("on")]
    for name in CLASSES:
        assert name in page.text
    for said in ("Progress", "my-model-8", "taken for", "conv1/w:0", "fc2/w/Adam", "learning_rate"):
        assert said in page.text
    assert b"http://" not in content.replace(b"http://www.w3.org", b"")
    assert b"https://" not in content


def test_a_strangers_checkpoint_is_told_of_without_data(tool: Tool, tmp_path: Path) -> None:
    names = dict[str, tf.Variable]()
    with stock.checkpoint(tmp_path / "theirs", var_list=names):
        names["<script>"] = w = tf.compat.v1.get_variable("w", [2, 3])
        names["far"] = tf.compat.v1.get_variable("far", initializer=np.array([-1.5e308, 1.5e308]))
        tf.matmul(tf.compat.v1.placeholder(tf.float32, [None, 2], name="x"), w, name="y")
    ended = tool("report", tmp_path / "theirs", f"--output={tmp_path}/r.html", "--format=json")
    assert ended.code == 0, ended.err
    (found,) = json.loads(ended.out)["runs"]
    assert {*found["failed"]} == {"progress", "configuration", "accuracy", "filters"}
    page = _Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "<script>" in page.text
    assert "script" not in page.tags
    assert "All that a prediction runs does nothing but compute." in page.text
    assert page.text.count("Not known: ") == 4


def test_a_saved_model_has_its_graph_and_its_variables(tool: Tool, tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.5])
    tf.saved_model.save(module, f"{tmp_path}/saved")
    ended = tool("report", tmp_path / "saved", f"--output={tmp_path}/r.html", "--format=json")
    assert ended.code == 0, ended.err
    (found,) = json.loads(ended.out)["runs"]
    assert {*found["failed"]} == {"progress", "configuration", "accuracy", "filters"}
    assert "v/.ATTRIBUTES/VARIABLE_VALUE" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_two_runs_stand_together(tool: Tool, run: Path, linear_run: Path, tmp_path: Path) -> None:
    ended = tool("report", run / "run", linear_run, f"--output={tmp_path}/r.html")
    assert ended.code == 0, ended.err
    text = _Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "The runs together" in text
    assert "run: training batch" in text
    assert "model: training batch" in text


def test_a_damaged_checkpoint_is_told_of_and_is_1(
    tool: Tool, linear_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(linear_run, tmp_path / "model")
    (tmp_path / "model/my-model-290.data-00000-of-00001").write_bytes(b"?")
    output = tmp_path / "model/checkpoint.html"  # It may lie in the run's folder.
    ended = tool("report", tmp_path / "model", f"--output={output}")
    assert ended.code == 1
    assert "my-model-290 does not verify" in ended.out
    assert "my-model-290.data-00000-of-00001" in output.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [1200, 360])
def test_a_browser_shows_it_without_a_complaint(
    tool: Tool, run: Path, tmp_path: Path, width: int
) -> None:
    output = tmp_path / "report.html"
    assert tool("report", run / "run", f"--output={output}").code == 0
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    flags += "--disable-background-networking --disable-component-update --disable-sync "
    flags += f"--enable-logging=stderr --dump-dom --window-size={width},900"
    ended = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path}/user", output.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "CONSOLE" not in ended.stderr
    shown = _Page(ended.stdout)
    for title in ("Progress", "Configuration", "Checkpoints", "Filters", "Graph", "Variables"):
        assert title in shown.text
