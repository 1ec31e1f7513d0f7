"""Checkpoints made and run by plain TensorFlow, to compare with: nothing of ours is in here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

v1 = tf.compat.v1


@contextmanager
def checkpoint(prefix: Path, write_meta_graph: bool = True, **saver_options: Any) -> Iterator[None]:
    """Saves what is built inside, its variables at their initial values, by a stock Saver."""
    with tf.Graph().as_default():
        yield
        saver = v1.train.Saver(**saver_options)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(prefix), write_meta_graph=write_meta_graph)


def edit_meta(path: Path, edit: Callable[[MetaGraphDef], object]) -> None:
    """Changes a `.meta` file in place."""
    proto = MetaGraphDef.FromString(path.read_bytes())
    edit(proto)
    path.write_bytes(proto.SerializeToString())


def sign(path: Path, **signatures: tuple[Mapping[str, str], Mapping[str, str]]) -> None:
    """Adds signatures to a `.meta` file: inputs and outputs, each by key -> tensor."""

    def edit(proto: MetaGraphDef) -> None:
        for name, (inputs, outputs) in signatures.items():
            for key, tensor in inputs.items():
                proto.signature_def[name].inputs[key].name = tensor
            for key, tensor in outputs.items():
                proto.signature_def[name].outputs[key].name = tensor

    edit_meta(path, edit)


def run(
    meta: str | Path,
    fetches: Sequence[str],
    feeds: Mapping[str, Any] | None = None,
    prefix: str | Path | None = None,
) -> list[npt.NDArray[Any]]:
    """What a stock client gets: import_meta_graph, Saver.restore (by default beside it), run."""
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(str(meta), clear_devices=True)
        saver.restore(session, str(prefix or str(meta).removesuffix(".meta")))
        return [np.asarray(value) for value in session.run(list(fetches), feeds)]
