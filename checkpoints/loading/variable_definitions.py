"""What the collections of a meta graph tell of its variables.

Format: `tensorflow/core/framework/variable.proto`.
"""

from collections.abc import Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef

from checkpoints.loading.meta_graph_file import MetaGraphFile, node_of


def variable_definitions(meta: MetaGraphFile, collection: str) -> Iterator[tuple[str, VariableDef]]:
    """The node and the definition of each variable of a collection; of another one, nothing.

    Anything may be in a collection: what is no definition, or of no node of the graph, is left out.
    """
    for content in meta.collection(collection).bytes_list.value:
        try:
            found = VariableDef.FromString(content)
        except DecodeError:
            continue
        name = node_of(found.variable_name)
        if name in meta.nodes:
            yield name, found
