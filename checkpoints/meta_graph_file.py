"""Reads a `.meta` file as data: its bytes are parsed and looked into, nothing of it is run.

Format: `tensorflow/core/protobuf/meta_graph.proto`.
"""

import difflib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef, SignatureDef

from checkpoints.errors import CheckpointError
from checkpoints.meta_graph import SIGNATURE
from checkpoints.naming import META_SUFFIX

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
PLACEHOLDERS_WITH_DEFAULT = frozenset({"PlaceholderWithDefault"})

_SAVER_OPS = frozenset(
    {"Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2"}
    | {"ShardedFilename", "ShardedFilespec", "MergeV2Checkpoints"}
)
_TENSOR_NAME = re.compile(r"[^:^]+:\d+")
_SUFFIX_OF_ANOTHER_FILE = re.compile(r"\.(index|manifest|data-\d{5}-of-\d{5})$")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, and where its variables are.

    Attributes:
      path: the `.meta` file.
      prefix: of the checkpoint that belongs to it: `path` without `.meta`.
      proto: the MetaGraphDef; not to be changed.
    """

    path: str
    prefix: str
    proto: MetaGraphDef

    @cached_property
    def nodes(self) -> Mapping[str, NodeDef]:
        """The graph's nodes by name, in the file's order.

        Raises:
          CheckpointError: two nodes have one name.
        """
        nodes = {node.name: node for node in self.proto.graph_def.node}
        if len(nodes) != len(self.proto.graph_def.node):
            raise CheckpointError(f"{self.path} is damaged: two of its nodes have the same name")
        return nodes

    @property
    def signature(self) -> SignatureDef:
        """The signature `serving_default`; an empty one where the file has none."""
        if SIGNATURE not in self.proto.signature_def:
            return SignatureDef()
        return self.proto.signature_def[SIGNATURE]

    def collection(self, key: str) -> CollectionDef:
        """A collection; an empty one where the file has none of that name."""
        if key not in self.proto.collection_def:
            return CollectionDef()
        return self.proto.collection_def[key]

    def find_tensor(self, text: str) -> str | None:
        """The full name of a tensor of this graph, None where there is no such node.

        `op/name` means `op/name:0`.
        """
        name = text if ":" in text else f"{text}:0"
        known = _TENSOR_NAME.fullmatch(name) and node_of(name) in self.nodes
        return name if known else None

    def tensor_name(self, text: str) -> str:
        """As `find_tensor`.

        Raises:
          CheckpointError: there is no such node; the message offers the nearest names.
        """
        name = self.find_tensor(text)
        if name is None:
            raise CheckpointError(f"{self.path} has no tensor {text!r}; {self._hint(text)}")
        return name

    def placeholders(self) -> tuple[str, ...]:
        """The model's placeholders, also those with a default; the saver's are left out."""
        scopes = {_scope(node.name) for node in self.nodes.values() if node.op in _SAVER_OPS}
        scopes.discard("")
        return tuple(
            f"{node.name}:0"
            for node in self.nodes.values()
            if node.op in PLACEHOLDERS | PLACEHOLDERS_WITH_DEFAULT
            and _scope(node.name) not in scopes
        )

    def _hint(self, text: str) -> str:
        near = difflib.get_close_matches(node_of(text), self.nodes, cutoff=0.5)
        if not near:
            return "predict.py --list shows its inputs and outputs"
        return "the nearest are " + ", ".join(f"{name}:0" for name in near)


def node_of(tensor_name: str) -> str:
    """The node that a tensor `name:index` is an output of."""
    return tensor_name.partition(":")[0]


def _scope(node: str) -> str:
    """`a/b` of `a/b/c`."""
    return posixpath.dirname(node)


def read_meta_graph(path: str) -> MetaGraphFile:
    """Reads and parses a `.meta` file.

    Raises:
      CheckpointError: the file is missing, unreadable or no meta graph.
    """
    prefix = path.removesuffix(META_SUFFIX)
    if prefix == path:
        stem = _SUFFIX_OF_ANOTHER_FILE.sub("", path)
        raise CheckpointError(f"{path} is no .meta file; expected one such as {stem}{META_SUFFIX}")
    content = _read(path)
    proto = MetaGraphDef()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise CheckpointError(f"{path} is no meta graph: {_what_it_is(content)}") from error
    if not proto.graph_def.node:
        raise CheckpointError(f"{path} is no meta graph: {_what_it_is(content)}")
    return MetaGraphFile(path, prefix, proto)


def _read(path: str) -> bytes:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read()
            return content
    except tf.errors.NotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except tf.errors.OpError as error:
        raise CheckpointError(f"{path} cannot be read: {error.message}") from error


def _what_it_is(content: bytes) -> str:
    """A guess at what was found in place of a meta graph, for an error line."""
    if not content:
        return "it is empty"
    if content.startswith(_LFS_POINTER):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    return f"its {len(content)} bytes hold no graph"
