"""Shapes for placeholders that leave them open."""

import pytest
import tensorflow as tf

from errors import CheckpointError, ToolError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.model import read_model
from metagraph.session import describe_tensors
from tests.prediction import foreign
from tools.export import Shape, parse_shape
from tools.export_source import with_shapes

v1 = tf.compat.v1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=?,3", ("x", (None, 3))),
        ("x:0=2", ("x:0", (2,))),
        ("x=", ("x", ())),
        ("a=b=?", ("a=b", (None,))),
    ],
)
def test_a_shape_is_parsed(text: str, expected: tuple[str, Shape]) -> None:
    assert parse_shape(text) == expected


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


def test_without_any_it_is_the_same_file(meta: MetaGraphFile) -> None:
    assert with_shapes(meta, {}, read_model(meta)) is meta


def test_another_shape_than_it_has_is_refused(meta: MetaGraphFile) -> None:
    with pytest.raises(ToolError, match=r"rows:0 is \[\?, 3\], which \[\?, 4\] does not go with"):
        with_shapes(meta, {"rows": (None, 4)}, read_model(meta))


def test_only_a_placeholder_has_an_open_shape(meta: MetaGraphFile) -> None:
    with pytest.raises(ToolError, match="y:0 is no placeholder"):
        with_shapes(meta, {"y": (1,)}, read_model(meta))


def test_a_tensor_that_is_not_there_is_named(meta: MetaGraphFile) -> None:
    with pytest.raises(CheckpointError, match="no tensor 'w'"):
        with_shapes(meta, {"w": (1,)}, read_model(meta))
