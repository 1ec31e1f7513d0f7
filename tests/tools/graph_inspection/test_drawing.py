"""The drawing of layers: what is joined, what is quoted, what Graphviz makes of it."""

import re
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from errors import ToolError
from metagraph.model import read_model
from metagraph.opening import open_model
from tests.tools.graph_inspection.graphs import subject_of
from tools import graph_drawing as layers
from tools.graph_drawing import LayerGraph, dot_text, draw_png, layer_graph
from tools.graph_subject import Subject

v1 = tf.compat.v1


needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz's dot")


# The language's own grammar: a quoted string, a name, or a mark. All else is no token.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_0-9]+|->|[{}\[\]=,;]|\s+')


HOSTILE = [
    'a"]; evil [image="/etc/passwd"',
    "a\\",
    'a\\"',
    "<b>html</b>",
    "line\nbreak",
    "\x1b[31m",
    "\\N \\G",
    "x" * 500,
]


def _graph(run: Path, **options: Any) -> LayerGraph:
    meta = open_model(str(run))
    return layer_graph(Subject(meta, read_model(meta), **options))


def test_the_layers_of_the_cnn(cnn_run: Path) -> None:
    graph = _graph(cnn_run)
    edges = graph.edges
    assert edges["x:0", "conv1"] == {"float32 [?, 32, 32, 3]": None}
    assert edges["conv1", "conv2"] == {"float32 [?, 11, 11, 32]": None}
    assert edges["conv2", "Reshape"] == {"float32 [?, 4, 4, 64]": None}
    assert edges["fc2", "probabilities"] == {"float32 [?, 4]": None}
    assert graph.layers["conv1"]["Conv2D"] == 1
    assert graph.outputs == {"fc2", "probabilities", "classes"}
    assert graph.inputs == {"x:0", "keep_prob"}
    assert not any("Adam" in name or "gradients" in name for name in graph.layers)


def test_a_large_graph_is_drawn_by_its_outer_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2], "x")
        for number in range(12):
            with v1.name_scope(f"block{number % 2}/inner{number}"):
                x = x + 1.0

    monkeypatch.setattr(layers, "MAX_LAYERS", 5)
    assert set(layer_graph(subject_of(build)).layers) == {"x", "block0", "block1"}
    monkeypatch.setattr(layers, "MAX_LAYERS", 2)
    with pytest.raises(ToolError, match="has 3 layers to draw, expected at most 2: --fetch"):
        layer_graph(subject_of(build))


def _tokens(text: str) -> list[str]:
    """The tokens; fails where something is none."""
    found, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match, text[position : position + 50]
        found.append(match[0])
        position = match.end()
    return [token for token in found if not token.isspace()]


def _hostile() -> LayerGraph:
    names = {name: Counter([name]) for name in HOSTILE}
    edges = {(HOSTILE[0], name): dict.fromkeys([name, *HOSTILE]) for name in HOSTILE[1:]}
    return LayerGraph(HOSTILE[0], names, edges)


def test_no_name_becomes_part_of_the_language() -> None:
    tokens = _tokens(dot_text(_hostile()))
    bare = {token for token in tokens if not token.startswith('"')}
    assert not bare & {"evil", "image", "html", "N", "G"}
    ids = {token for token in bare if re.fullmatch(r"n\d+", token)}
    assert len(ids) == len(HOSTILE)
    assert tokens.count("->") == len(HOSTILE) - 1
    assert "\x1b" not in "".join(tokens)
    assert max(map(len, tokens)) < 500


@needs_dot
def test_graphviz_reads_the_names_as_they_are() -> None:
    """Its own plain output has one node and one edge for each of ours, and no attribute more."""
    ended = subprocess.run(
        ["dot", "-Tplain"],
        input=dot_text(_hostile()).encode(),
        capture_output=True,
        check=True,
        timeout=300,
    )
    lines = ended.stdout.decode().splitlines()
    assert sum(line.startswith("node ") for line in lines) == len(HOSTILE)
    assert sum(line.startswith("edge ") for line in lines) == len(HOSTILE) - 1
    assert ended.stderr == b""


@needs_dot
def test_a_png_is_drawn(cnn_run: Path) -> None:
    content = draw_png(dot_text(_graph(cnn_run)))
    width, height = struct.unpack(">II", content[16:24])
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(width, height) > 200


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts another `dot` in the place of Graphviz's."""
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))


def test_a_failing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, monkeypatch, "cat >/dev/null; echo 'no font' >&2; exit 3")
    with pytest.raises(ToolError, match="dot fails with exit code 3: no font"):
        draw_png("digraph {}")
    _program(tmp_path, monkeypatch, "cat >/dev/null")
    with pytest.raises(ToolError, match="exit code 0: it wrote no PNG"):
        draw_png("digraph {}")


def test_a_program_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(ToolError, match=r"dot takes longer than 0\.1 seconds"):
        draw_png("digraph {}", seconds=0.1)
