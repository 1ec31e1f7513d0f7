"""The names in an object-based checkpoint, as `tf.train.Checkpoint` and a SavedModel write it.

A key there is a path through objects; the checkpoint also holds a graph of these objects, which
tells what each variable is called.

Formats: `tensorflow/core/protobuf/trackable_object_graph.proto`, and for the escapes in a key
`tensorflow/python/trackable/trackable_utils.py`.
"""

from collections.abc import Mapping

from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from checkpoints.errors import CheckpointError
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.loading.model_parsing import parse_message
from checkpoints.loading.saver_mapping import OBJECT_SUFFIX
from checkpoints.loading.stored_tensors import StoredTensor

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

_SLOT = "/.OPTIMIZER_SLOT/"
_MAX_BYTES = 16 << 20  # Some kilobytes are usual.


def path_of(key: str) -> str:
    """The path of objects that a key stands for: `net/kernel`, `net/kernel (optimizer/m)`.

    A key that is none of an object stays as it is.
    """
    if not key.endswith(OBJECT_SUFFIX):
        return key
    variable, slot, of = key.removesuffix(OBJECT_SUFFIX).partition(_SLOT)
    path = f"{variable} ({of})" if slot else variable
    return path.replace(".S", "/").replace("..", ".")


def variable_names(reader: CheckpointReader, stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Key -> what its variable is called, by the graph of objects; empty where there is none.

    It is the one tensor that is read for a listing, and only where it is of a usual size.
    """
    if OBJECT_GRAPH not in reader.shapes or reader.shapes[OBJECT_GRAPH]:
        return {}
    if (stored[OBJECT_GRAPH].disk_bytes or 0) > _MAX_BYTES:
        return {}
    try:
        content = reader.read(OBJECT_GRAPH).item()
        graph = parse_message(TrackableObjectGraph(), content, reader.prefix, _MAX_BYTES)
    except (CheckpointError, TypeError):  # Nothing else depends on it.
        return {}
    attributes = (attribute for node in graph.nodes for attribute in node.attributes)
    return {a.checkpoint_key: a.full_name for a in attributes if a.full_name}
