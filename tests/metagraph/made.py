"""Files of models, made for a test; what is said of those that are refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import UserError
from metagraph.meta import MetaGraphFile, read_meta_graph
from tests.prediction import stock

v1 = tf.compat.v1


def of_proto(proto: MetaGraphDef) -> MetaGraphFile:
    """A file that is nowhere, `m.meta`."""
    return MetaGraphFile("m.meta", "m", proto)


def of_nodes(*nodes: tuple[str, str, list[str]]) -> MetaGraphFile:
    """A file of nodes by name, operation and inputs."""
    proto = MetaGraphDef()
    for name, op, inputs in nodes:
        proto.graph_def.node.add(name=name, op=op, input=inputs)
    return of_proto(proto)


def of_graph(build: Callable[[], object]) -> MetaGraphFile:
    """A file of the graph that `build` builds, without a checkpoint."""
    with tf.Graph().as_default() as graph:
        build()
        return of_proto(v1.train.export_meta_graph(graph=graph))


def saved(folder: Path, build: Callable[[], object], **saver_options: Any) -> MetaGraphFile:
    """A checkpoint `m` of what `build` builds, and of a variable `v` where it makes none."""
    with stock.checkpoint(folder / "m", **saver_options):
        build()
        if not v1.global_variables():
            v1.get_variable("v", [1], use_resource=False)
    return read_meta_graph(f"{folder}/m.meta")


@contextmanager
def refused(
    match: str, error: type[UserError] | tuple[type[UserError], ...] = UserError
) -> Iterator[None]:
    """Expects an error of one line that matches."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)
