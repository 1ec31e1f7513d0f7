"""Graphs for the tests: from plain TensorFlow to what is looked at."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from metagraph.meta import MetaGraphFile
from metagraph.model import read_model
from tools.graph_subject import Subject

v1 = tf.compat.v1


def meta_of(build: Callable[[], Any], **options: Any) -> MetaGraphFile:
    """The meta graph of what is built; where that gives a Saver, with it."""
    with tf.Graph().as_default() as graph:
        saver = build()
        saver_def = saver.as_saver_def() if isinstance(saver, v1.train.Saver) else None
        proto = v1.train.export_meta_graph(graph=graph, saver_def=saver_def, **options)
        return MetaGraphFile("model.meta", "model", proto)


def subject_of(meta: MetaGraphFile | Callable[[], Any], *fetch: str, **options: Any) -> Subject:
    """What is looked at of a meta graph, or of what is built."""
    meta = meta if isinstance(meta, MetaGraphFile) else meta_of(meta)
    return Subject(meta, read_model(meta), fetch, **options)


def variable(name: str, shape: list[int], resource: bool = True) -> tf.Variable:
    return v1.get_variable(name, initializer=np.zeros(shape, np.float32), use_resource=resource)
