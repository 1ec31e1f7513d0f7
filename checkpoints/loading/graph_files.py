"""The graph in a `.pb` or `.pbtxt` file: a frozen graph, a SavedModel or a meta graph.

Formats: `tensorflow/core/framework/graph.proto`, `tensorflow/core/protobuf/saved_model.proto`.
"""

import os

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints.errors import CheckpointError
from checkpoints.loading.model_description import take_description
from checkpoints.loading.model_parsing import parse_message, what_it_is

GRAPH_SUFFIXES = (".pb", ".pbtxt")
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")

_SERVE = "serve"


def parse_graph_file(content: bytes, path: str, max_bytes: int) -> MetaGraphDef | SavedModel:
    """What the file holds, told by its content: any kind may be called `.pb`.

    Returns:
      A SavedModel, or a MetaGraphDef; of a graph alone, one with nothing but that graph and what
      it says of itself, see `model_description`.

    Raises:
      CheckpointError: it is none of them.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        return parse_message(SavedModel(), content, path, max_bytes)
    bare, whole, saved = MetaGraphDef(), MetaGraphDef(), SavedModel()
    first_error = None
    for message in (bare.graph_def, saved, whole):
        try:
            parse_message(message, content, path, max_bytes)
        except CheckpointError as error:
            first_error = first_error or error
    if _is_graph(bare.graph_def):
        bare.MergeFrom(take_description(bare.graph_def))
        return bare
    if any(_is_graph(meta.graph_def) for meta in saved.meta_graphs):
        return saved
    if _is_graph(whole.graph_def):
        return whole
    raise first_error or CheckpointError(f"{path} is no graph: {what_it_is(content)}")


def _is_graph(graph: GraphDef) -> bool:
    """Whether bytes that could be read as a graph are one: each node has a name and an op."""
    return bool(graph.node) and all(node.name and node.op for node in graph.node)


def serving_graph(saved_model: SavedModel, path: str) -> MetaGraphDef:
    """The meta graph with the tag `serve`, which predicts; any other where it is the only one.

    Raises:
      CheckpointError: there are several, and none is for serving, or not one alone.
    """
    graphs = [graph for graph in saved_model.meta_graphs if graph.graph_def.node]
    for wanted in ({_SERVE}, {_SERVE, "gpu"}):
        for graph in graphs:
            if set(graph.meta_info_def.tags) == wanted:
                return graph
    if len(graphs) == 1:
        return graphs[0]
    tags = "; ".join(",".join(graph.meta_info_def.tags) or "none" for graph in graphs)
    found = f"the tags of its {len(graphs)} graphs are {tags}" if graphs else "it holds no graph"
    raise CheckpointError(f"{path} has no graph with the one tag {_SERVE!r}: {found}")
