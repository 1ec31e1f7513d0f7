"""The model that tools.export exports, and the folder of its version.

The model is frozen, and comes with what its session computes on one batch. Version folders are
those that TensorFlow Serving watches: `<model>/1`, `<model>/2`, and so on.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints import file_io
from checkpoints.folder import names_in
from checkpoints.lock import FolderLock
from errors import ToolError, reason
from metagraph.casting import Array
from metagraph.meta import PLACEHOLDERS, MetaGraphFile, TensorInfo, format_shape, node_of
from metagraph.model import Model, read_model
from metagraph.session import describe_tensors
from tools.export import ExportConfig, Shape
from tools.frozen_comparison import Reference, freeze_and_compare, largest_difference, run_frozen
from tools.frozen_graph import FrozenGraph


def with_shapes(meta: MetaGraphFile, shapes: Mapping[str, Shape], model: Model) -> MetaGraphFile:
    """The same file with shapes for placeholders; the very same where none is given.

    Args:
      meta: the file.
      shapes: by tensor, or key of the signature.
      model: its description.

    Raises:
      CheckpointError: there is no such tensor.
      ToolError: a tensor is no placeholder, or has another shape already.
    """
    if not shapes:
        return meta
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    nodes = {node.name: node for node in proto.graph_def.node}
    for name, shape in _checked(meta, model, shapes).items():
        attributes = nodes[node_of(name)].attr
        attributes["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
        attributes.pop("_output_shapes", None)  # The graphs of old producers have it here.
    return MetaGraphFile(meta.path, meta.prefix, proto)


def _checked(meta: MetaGraphFile, model: Model, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes by full tensor name."""
    found = {meta.tensor_name(text, model.feed_keys): shape for text, shape in shapes.items()}
    for info in describe_tensors(meta, [*found]):
        if meta.nodes[node_of(info.name)].op not in PLACEHOLDERS:
            raise ToolError(f"--shape: {info.name} is no placeholder, and has the shape it has")
        if not tf.TensorShape(found[info.name]).is_compatible_with(tf.TensorShape(info.shape)):
            raise ToolError(
                f"--shape: {info.name} is {format_shape(info.shape)}, which "
                f"{format_shape(found[info.name])} does not go with"
            )
    return found


# The model that is exported: frozen, and with what its session computes on one batch.


@dataclass(frozen=True)
class Source:
    """A frozen graph, and what the session of its checkpoint computes.

    Attributes:
      config: how it is exported.
      frozen: the graph.
      reference: a batch, and what the original computes with it.
    """

    config: ExportConfig
    frozen: FrozenGraph
    reference: Reference

    @cached_property
    def model(self) -> Model:
        """What the graph says of itself."""
        return read_model(self.frozen.as_file(self.frozen.plan.meta.path))

    @cached_property
    def inputs(self) -> dict[str, TensorInfo]:
        """By the signature's keys."""
        file = self.frozen.as_file(self.frozen.plan.meta.path)
        names = self.frozen.inputs
        infos = describe_tensors(file, [*names.values()]) if names else ()
        return dict(zip(names, infos, strict=True))

    @property
    def feeds(self) -> dict[str, Array]:
        """The batch, by the full names of the inputs."""
        return {name: self.reference.feeds[name] for name in self.frozen.inputs.values()}

    def on(self, feeds: Mapping[str, Array]) -> Reference:
        """What the session computes with another batch.

        Args:
          feeds: values of the inputs, by full tensor name.
        """
        asked = self.reference._replace(feeds=feeds)
        return asked._replace(results=run_frozen(self.frozen, asked, self.config))

    def check_ranks(self, format_name: str) -> None:
        """Raises ToolError where an input may be of any rank, of which other formats make one."""
        for info in self.inputs.values():
            if info.shape is None:
                raise ToolError(
                    f"{info.name} may have any shape, and {format_name} has to know how many "
                    f"dimensions there are: say it, as in --shape={info.name.removesuffix(':0')}=?"
                )


def freeze_source(config: ExportConfig, meta: MetaGraphFile) -> Source:
    """Freezes, and compares the frozen graph with the model.

    Raises:
      CheckpointError, ToolError: it cannot be frozen, run, or is not the same then.
    """
    frozen, reference, _ = freeze_and_compare(meta, config)
    return Source(config, frozen, reference)


def check_close(
    reference: Reference, results: Mapping[str, Array], tolerance: float, runtime: str
) -> float:
    """Sees that a runtime computes what the session does.

    Args:
      reference: the session's.
      results: the runtime's, by full tensor name.
      tolerance: absolute and relative; of what is rounded: anything else has to be equal.
      runtime: its name.

    Returns:
      The largest difference.

    Raises:
      ToolError: there is a larger difference, or another shape or dtype.
    """
    try:
        return largest_difference(reference, results, runtime, tolerance)
    except ToolError as error:
        raise ToolError(f"{error}, more than --tolerance={tolerance:g}; nothing is kept") from error


# Version folders as TensorFlow Serving watches them: `<model>/1`, `<model>/2`, and so on.
#
# A server loads a folder with the name of a number as soon as it is there, so it is written under
# another name and renamed.

_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = ".being-written"


def choose_version(folder: str, asked: int | None) -> int:
    """The version to write.

    Args:
      folder: of the model, which need not exist.
      asked: a version, None for the one above the highest that is there.

    Raises:
      ToolError: the folder is a file, or the version that is asked for exists.
    """
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise ToolError(f"--output={folder} is a file; a SavedModel is a folder of versions")
    there = _versions(folder)
    if asked is None:
        return max(there, default=0) + 1
    if asked in there:
        raise ToolError(
            f"{os.path.join(folder, str(asked))} exists already: a server may be using it; leave "
            f"out --version for the next one, {max(there) + 1}"
        )
    return asked


def _versions(folder: str) -> list[int]:
    names = names_in(folder) if tf.io.gfile.isdir(folder) else []
    return [int(name) for name in names if _NUMBER.fullmatch(name)]


@contextmanager
def new_version(folder: str, version: int) -> Iterator[str]:
    """A folder to write a version into, which is in its place where no error comes, or gone.

    Args:
      folder: of the model.
      version: one that `choose_version` has chosen.

    Raises:
      CheckpointError: another process is exporting into the folder.
      ToolError: the version has been written by someone else in the meantime.
    """
    final = os.path.join(folder, str(version))
    temporary = final + _BEING_WRITTEN
    with _locked(folder):
        _remove(temporary)  # What an export that was killed has left.
        tf.io.gfile.makedirs(temporary)
        try:
            yield temporary
            _flush_all(temporary)
            _put_in_place(temporary, final)
        finally:
            _remove(temporary)
        file_io.flush(folder)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keeps other exports from a folder, which is made where it is missing, and then not empty."""
    is_new = not tf.io.gfile.isdir(folder)
    tf.io.gfile.makedirs(folder)
    try:
        with FolderLock(folder, "take another --output", keeps_file=False):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # There is something in it.
                os.rmdir(folder)


def _put_in_place(temporary: str, final: str) -> None:
    if tf.io.gfile.exists(final):
        raise ToolError(f"{final} has been written by someone else: run the command again")
    try:
        tf.io.gfile.rename(temporary, final)
    except tf.errors.OpError as error:
        raise ToolError(f"{final} cannot be written: {reason(error)}") from error


def _flush_all(folder: str) -> None:
    for path, _, files in tf.io.gfile.walk(folder):
        for name in files:
            file_io.flush(os.path.join(path, name))
        file_io.flush(path)


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
