"""The drawing of layers: what is joined, what is quoted, what Graphviz makes of it."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from errors import ToolError
from tests.tools.graph_inspection.graphs import subject_of
from tools import graph_layers
from tools.graph_layers import LayerGraph, dot_text, draw_png, layer_graph

v1 = tf.compat.v1
# The language's own grammar: a quoted string, a name, or a mark. All else is no token.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_0-9]+|->|[{}\[\]=,;]|\s+')
HOSTILE = ['a"]; evil [image="/etc/passwd"', "a\\", 'a\\"', "<b>html</b>", "line\nbreak"]
HOSTILE += ["\x1b[31m", "\\N \\G", "x" * 500]


def test_a_large_graph_is_drawn_by_its_outer_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [2], "x")
        for number in range(12):
            with v1.name_scope(f"block{number % 2}/inner{number}"):
                x = x + 1.0

    monkeypatch.setattr(graph_layers, "MAX_LAYERS", 5)
    assert set(layer_graph(subject_of(build)).layers) == {"x", "block0", "block1"}
    monkeypatch.setattr(graph_layers, "MAX_LAYERS", 2)
    with pytest.raises(ToolError, match="has 3 layers to draw, expected at most 2: --fetch"):
        layer_graph(subject_of(build))


def _hostile() -> LayerGraph:
    names = {name: Counter([name]) for name in HOSTILE}
    edges = {(HOSTILE[0], name): dict.fromkeys([name, *HOSTILE]) for name in HOSTILE[1:]}
    return LayerGraph(HOSTILE[0], names, edges)


def test_no_name_becomes_part_of_the_language() -> None:
    text = dot_text(_hostile())
    tokens = _TOKEN.findall(text)
    assert "".join(tokens) == text
    bare = {token for token in tokens if not token.startswith('"')}
    assert not bare & {"evil", "image", "html", "N", "G"}
    ids = {token for token in bare if re.fullmatch(r"n\d+", token)}
    assert len(ids) == len(HOSTILE)
    assert tokens.count("->") == len(HOSTILE) - 1
    assert "\x1b" not in text
    assert max(map(len, tokens)) < 500


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz's dot")
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


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("cat >/dev/null; echo 'no font' >&2; exit 3", "dot fails with exit code 3: no font"),
        ("cat >/dev/null", "exit code 0: it wrote no PNG"),
        ("exec sleep 60", "dot takes longer than 2 seconds"),
    ],
)
def test_a_failing_program_is_one_line(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    with pytest.raises(ToolError, match=message):
        draw_png("digraph {}", seconds=2)
