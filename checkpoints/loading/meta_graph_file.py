"""A meta graph as data: a `.meta` file is parsed and looked into, nothing of it is run.

Format: `tensorflow/core/protobuf/meta_graph.proto`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import CollectionDef, MetaGraphDef

from checkpoints.bounded_file import read_bounded
from checkpoints.errors import CheckpointError
from checkpoints.loading.model_parsing import (
    DEFAULT_MAX_BYTES,
    MAX_META_FLAG,
    parse_message,
    what_it_is,
)
from checkpoints.loading.nearest_names import nearest_names
from checkpoints.naming import META_SUFFIX

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
PLACEHOLDERS_WITH_DEFAULT = frozenset({"PlaceholderWithDefault"})

_NODE_NAME = re.compile(r"[^:^\s]+")
_TENSOR_NAME = re.compile(r"[^:^]+:[0-9]{1,9}")
_SUFFIX_OF_ANOTHER_FILE = re.compile(r"\.(index|manifest|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class MetaGraphFile:
    """A parsed meta graph, and where its variables are.

    Attributes:
      path: the file that holds the graph, such as a `.meta`.
      prefix: of the checkpoint that belongs to it: of a `.meta`, its path without that.
      proto: the MetaGraphDef; not to be changed.
    """

    path: str
    prefix: str
    proto: MetaGraphDef

    @cached_property
    def nodes(self) -> Mapping[str, NodeDef]:
        """The graph's nodes by name, in the file's order.

        Raises:
          CheckpointError: two nodes have one name, or one has a name that is none.
        """
        nodes = {node.name: node for node in self.proto.graph_def.node}
        if len(nodes) != len(self.proto.graph_def.node):
            raise CheckpointError(f"{self.path} is damaged: two of its nodes have the same name")
        for name in nodes:
            if not _NODE_NAME.fullmatch(name):
                raise CheckpointError(f"{self.path} is damaged: {name!r} is no name of a node")
        return nodes

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

    def tensor_name(self, text: str, keys: Mapping[str, str] = MappingProxyType({})) -> str:
        """As `find_tensor`.

        Args:
          text: a tensor, or one of `keys`; what is both is the tensor.
          keys: other names of some tensors, such as those of a signature.

        Raises:
          CheckpointError: there is no such node; the message offers the nearest names.
        """
        name = self.find_tensor(text) or keys.get(text)
        if name is None:
            raise CheckpointError(f"{self.path} has no tensor {text!r}; {self._hint(text, keys)}")
        return name

    def _hint(self, text: str, keys: Mapping[str, str]) -> str:
        own = [key for key in keys if key not in self.nodes]
        near = nearest_names(text, [*own, *(f"{name}:0" for name in self.nodes)])
        if not near:
            return "predict.py --list shows its inputs and outputs"
        return "the nearest are " + ", ".join(near)


def node_of(tensor_name: str) -> str:
    """The node that a tensor `name:index` is an output of."""
    return tensor_name.partition(":")[0]


def read_meta_graph(path: str, max_bytes: int = DEFAULT_MAX_BYTES) -> MetaGraphFile:
    """Reads and parses a `.meta` file, binary or text.

    Raises:
      CheckpointError: the file is missing, unreadable, larger than `max_bytes` or no meta graph.
    """
    prefix = path.removesuffix(META_SUFFIX)
    if prefix == path:
        stem = _SUFFIX_OF_ANOTHER_FILE.sub("", path)
        raise CheckpointError(f"{path} is no .meta file; expected one such as {stem}{META_SUFFIX}")
    content = read_bounded(path, max_bytes, MAX_META_FLAG)
    proto = parse_message(MetaGraphDef(), content, path, max_bytes)
    if not proto.graph_def.node:
        raise CheckpointError(f"{path} is no meta graph: {what_it_is(content)}")
    return MetaGraphFile(path, prefix, proto)
