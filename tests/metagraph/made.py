"""Files of models, made for a test and run; what is said of those that are refused."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from errors import UserError
from metagraph.meta import MetaGraphFile, read_meta_graph
from metagraph.session import load_inference_graph
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


def of_graph(build: Callable[[], object], **options: Any) -> MetaGraphFile:
    """A file without a checkpoint: the graph that `build` builds, and the Saver it may give."""
    with tf.Graph().as_default() as graph:
        saver = build()
        if isinstance(saver, v1.train.Saver):
            options["saver_def"] = saver.as_saver_def()
        return of_proto(v1.train.export_meta_graph(graph=graph, **options))


def saved(folder: Path, build: Callable[[], object], **saver_options: Any) -> MetaGraphFile:
    """A checkpoint `m` of what `build` builds, and of a variable `v` where it makes none."""
    with stock.checkpoint(folder / "m", **saver_options):
        build()
        if not v1.global_variables():
            v1.get_variable("v", [1], use_resource=False)
    return read_meta_graph(f"{folder}/m.meta")


def run(
    meta: MetaGraphFile,
    fetches: Sequence[str],
    feeds: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> list[npt.NDArray[Any]]:
    """What `fetches` are when `feeds` are fed."""
    with load_inference_graph(meta, fetches, [*feeds], **options) as graph:
        return graph.run(*map(np.asarray, feeds.values()))


@contextmanager
def control_flow(new: bool) -> Iterator[None]:
    """Conditions and loops as functions, or as the switches and merges of old graphs."""
    (v1.enable_control_flow_v2 if new else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def warnings_said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of the log from now on."""
    said: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


@contextmanager
def refused(
    match: str, error: type[UserError] | tuple[type[UserError], ...] = UserError
) -> Iterator[None]:
    """Expects an error of one line that matches."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)
