"""What --list says of the variables of each state that a checkpoint can be in."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.reader import CheckpointReader
from metagraph.model import CheckpointState, checkpoint_state, state_record, state_text
from metagraph.opening import open_model
from tests.prediction import stock

v1 = tf.compat.v1


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """With v [3] of which the graph has another shape, w, and u that was not saved."""
    with stock.checkpoint(tmp_path / "m"):
        for name in ("u", "v", "w"):
            v1.get_variable(name, initializer=np.ones(3, np.float32), use_resource=False)
    return tmp_path / "m"


def _problems(prefix: Path) -> list[str]:
    meta = open_model(f"{prefix}.meta")
    state = checkpoint_state(meta, ())
    assert state is not None
    record = state_record(meta, state)
    assert (record["meta"], record["checkpoint"]) == (f"{prefix}.meta", str(prefix))
    found: list[str] = record["problems"]
    lines = state_text(state).splitlines()[1:]
    assert lines[0] == "checkpoint"
    assert [line.strip() for line in lines[2:]] == found
    return found


def test_all_is_well_and_no_value_is_read(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(CheckpointReader, "read")
    assert _problems(prefix) == []
    state = checkpoint_state(open_model(f"{prefix}.meta"), ())
    assert state_text(state) == f"\ncheckpoint\n  {prefix} has a value for each variable"


def test_a_saver_that_stored_some(prefix: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape in (("v", [4]), ("w", [3])):
            v1.get_variable(name, shape, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    assert _problems(prefix) == [
        "u is missing",
        "v is float32 [4], the graph has float32 [3]",
    ]


@pytest.mark.parametrize(
    ("outputs", "problems", "unneeded"),
    [
        (["y:0"], [], ["u is missing", "z is missing"]),
        (["both:0"], ["u is missing"], ["z is missing"]),
        (["y:0", "both:0", "z:0"], ["u is missing", "z is missing"], []),
        ([], ["u is missing", "z is missing"], []),
    ],
)
@pytest.mark.parametrize("resource", [False, True])
def test_what_no_output_needs_is_apart(
    tmp_path: Path,
    outputs: Sequence[str],
    problems: list[str],
    unneeded: list[str],
    resource: bool,
) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        u, w, _ = (v1.get_variable(name, [3], use_resource=resource) for name in "uwz")
        y = tf.multiply(w, 2.0, name="y")
        tf.add(u, y, name="both")
        session.run(v1.global_variables_initializer())
        v1.train.Saver([w]).save(session, f"{tmp_path}/m")
    state = checkpoint_state(open_model(f"{tmp_path}/m.meta"), outputs)
    assert state == CheckpointState(f"{tmp_path}/m", problems, unneeded)
    text = state_text(state)
    assert ("m lacks values" in text) == bool(problems)
    assert ("m has a value for each variable that is needed" in text) == (not problems)
    assert ("no output needs it\n  " in text) == bool(unneeded)


@pytest.mark.parametrize(
    ("suffix", "cut", "missing"),
    [
        (
            ".data-00000-of-00001",
            "its files are smaller than the values",
            "its data file .* is missing",
        ),
        (".index", "its index cannot be read", "has no variables"),
    ],
)
def test_a_short_or_missing_file(prefix: Path, suffix: str, cut: str, missing: str) -> None:
    path = Path(f"{prefix}{suffix}")
    path.write_bytes(path.read_bytes()[:20])
    (line,) = _problems(prefix)
    assert cut in line
    path.unlink()
    (line,) = _problems(prefix)
    assert re.search(missing, line)


def test_the_manifest_speaks_of_the_index(linear_run: Path, tmp_path: Path) -> None:
    for path in linear_run.glob("my-model-300.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    prefix = tmp_path / "my-model-300"
    assert _problems(prefix) == []
    Path(f"{prefix}.index").write_bytes(Path(f"{linear_run}/my-model-290.index").read_bytes())
    (line,) = _problems(prefix)
    assert "my-model-300.index is damaged" in line


def test_a_graph_whose_variable_cannot_be(prefix: Path) -> None:
    def damage(proto: MetaGraphDef) -> None:
        for node in proto.graph_def.node:
            if node.name == "w":
                node.attr["dtype"].type = 99

    stock.edit_meta(Path(f"{prefix}.meta"), damage)
    (line,) = _problems(prefix)
    assert line.endswith("there is no dtype 99")
