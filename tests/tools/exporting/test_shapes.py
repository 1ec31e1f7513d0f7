"""Shapes for placeholders that leave them open."""

import pytest
import tensorflow as tf

from errors import CheckpointError, ToolError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from metagraph.session import describe_tensors
from tests.prediction import foreign
from tools.export import Shape, parse_shapes
from tools.exporting import with_shapes

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=?,3", {"x": (None, 3)}),
        ("x:0=2", {"x:0": (2,)}),
        ("x=", {"x": ()}),
        ("a=b=?", {"a=b": (None,)}),
    ],
)
def test_a_shape_is_parsed(text: str, expected: dict[str, Shape]) -> None:
    assert parse_shapes([text]) == expected


def _open_graph() -> None:
    x = v1.placeholder(tf.float32, name="x")
    rows = v1.placeholder(tf.float32, [None, 3], name="rows")
    tf.add(x, foreign.bias(), name="y")
    tf.add(rows, foreign.bias(), name="z")


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> MetaGraphFile:
    return read_meta_graph(foreign.save(tmp_path_factory.mktemp("open"), _open_graph))


def test_the_shape_goes_on_through_the_graph(meta: MetaGraphFile) -> None:
    changed = with_shapes(meta, {"x": (None, 5)}, read_model(meta))
    assert [info.shape for info in describe_tensors(changed, ["x:0", "y:0"])] == [(None, 5)] * 2
    assert [info.shape for info in describe_tensors(meta, ["x:0", "y:0"])] == [None, None]


def test_a_size_may_be_fixed(meta: MetaGraphFile) -> None:
    (info,) = describe_tensors(with_shapes(meta, {"rows:0": (7, 3)}, read_model(meta)), ["z:0"])
    assert info.shape == (7, 3)


@pytest.mark.parametrize(
    ("name", "shape", "line"),
    [
        ("rows", (None, 4), r"rows:0 is \[\?, 3\], which \[\?, 4\] does not go with"),
        ("y", (1,), "y:0 is no placeholder"),
        ("w", (1,), "no tensor 'w'"),
    ],
)
def test_what_does_not_fit_is_refused(
    meta: MetaGraphFile, name: str, shape: Shape, line: str
) -> None:
    with pytest.raises((CheckpointError, ToolError), match=line):
        with_shapes(meta, {name: shape}, read_model(meta))
