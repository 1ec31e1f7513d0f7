"""Graphs for the tests: from plain TensorFlow to what the parts look at."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from tools.graph_subject import Subject

v1 = tf.compat.v1


def meta_of(build: Callable[[], Any]) -> MetaGraphFile:
    """The meta graph of what is built."""
    with tf.Graph().as_default() as graph:
        build()
        return MetaGraphFile("model.meta", "model", v1.train.export_meta_graph(graph=graph))


def subject_of(build: Callable[[], Any], *fetch: str, **options: Any) -> Subject:
    meta = meta_of(build)
    return Subject(meta, read_model(meta), fetch, **options)


def variable(name: str, shape: list[int], resource: bool = True) -> tf.Variable:
    return v1.get_variable(name, initializer=np.zeros(shape, np.float32), use_resource=resource)
