"""Opens the model, or the checkpoint, that a path stands for.

A path is a `.meta` file, the prefix of a checkpoint or another of its files, a frozen graph, a
SavedModel, or a folder of one. Of a folder's checkpoints it is the newest that is meant.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace

from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import file_io
from checkpoints import layout
from checkpoints.folder import beside, find_variables, newest_of, own_names, usable_steps
from checkpoints.layout import INDEX_SUFFIX, META_SUFFIX, SAVED_MODEL_FILES, SAVED_MODEL_VARIABLES
from checkpoints.reader import OBJECT_GRAPH, CheckpointReader
from errors import CheckpointError, first_few
from file_io import HEAD_BYTES, kind_of, names_in, read_bounded, read_head
from metagraph.importing import take_by_value
from metagraph.meta import (
    DEFAULT_MAX_BYTES,
    MAX_META_FLAG,
    MetaGraphFile,
    parse_message,
    read_meta_graph,
    take_description,
    what_it_is,
)

GRAPH_SUFFIXES = (".pb", ".pbtxt")
_SERVE, _TRAIN = "serve", "train"
_SUFFIXES = (META_SUFFIX, *GRAPH_SUFFIXES)
_MAX_NAMED = 10


def open_model(
    path: str,
    max_bytes: int = DEFAULT_MAX_BYTES,
    checkpoints: Sequence[str] = (),
    tags: str | None = None,
) -> MetaGraphFile:
    """Reads the graph that `path` stands for, and says where its variables are.

    They may be elsewhere, in one of `checkpoints` or another, each as `find_variables` takes it. Of
    a SavedModel it is the graph with the `tags`, as `tagged_graph` has it. Raises CheckpointError
    where the graph has more than `max_bytes`, is not there or not alone, or a part is missing.
    """
    file = find_model(path, warn=not checkpoints)
    if file.endswith(GRAPH_SUFFIXES):
        found = parse_graph_file(read_bounded(file, max_bytes, MAX_META_FLAG), file)
        if isinstance(found, MetaGraphDef):  # A frozen graph, without variables.
            meta = MetaGraphFile(file, os.path.splitext(file)[0], found)
        else:  # A SavedModel by its content, whatever its name.
            prefix = os.path.join(os.path.dirname(file), SAVED_MODEL_VARIABLES)
            meta = MetaGraphFile(file, prefix, tagged_graph(found, file, tags))
    else:
        meta = read_meta_graph(file, max_bytes)
    if tags is not None and not meta.prefix.endswith(SAVED_MODEL_VARIABLES):
        raise CheckpointError(f"--tags={tags}: {file} is no SavedModel, and has one graph")
    if by_value := take_by_value(meta.proto.graph_def):
        told = first_few(by_value, _MAX_NAMED)
        logging.info("%s has constants for variables, which %s cannot write to", file, told)
    if not checkpoints:
        return meta
    prefix, *others = map(find_variables, checkpoints)
    held = [CheckpointReader(path).shapes.keys() - {OBJECT_GRAPH} for path in (prefix, *others)]
    if twice := sorted(set[str]().union(*(a & b for a, b in itertools.combinations(held, 2)))):
        told = first_few(twice, _MAX_NAMED)
        logging.warning("in several of the checkpoints, of which the first counts: %s", told)
    return replace(meta, prefix=prefix, others=tuple(others))


def find_model(path: str, warn: bool = True) -> str:
    """The file that holds the graph; it may `warn` of variables in a folder that have none."""
    if file_io.is_folder(path):
        return _in_folder(path, warn)
    is_graph = path.endswith(GRAPH_SUFFIXES)
    prefix = os.path.splitext(path)[0] if is_graph else layout.prefix_of(path)
    file = path if is_graph else prefix + META_SUFFIX
    if file_io.exists(file):
        return file
    raise _no_graph(path, prefix)


def _in_folder(path: str, warn: bool) -> str:
    """The file of the one model in a folder, of its newest checkpoint where there are several."""
    names = own_names(path)
    if saved_models := [name for name in SAVED_MODEL_FILES if name in names]:
        return os.path.join(path, saved_models[0])
    if steps := usable_steps(path):
        prefix = layout.checkpoint_prefix(path, steps[-1])
        if file_io.exists(prefix + META_SUFFIX):
            return prefix + META_SUFFIX
        raise _no_graph(prefix + META_SUFFIX, prefix)
    metas = [name.removesuffix(META_SUFFIX) for name in names if name.endswith(META_SUFFIX)]
    found = [name + META_SUFFIX for name in newest_of(path, metas)]
    found = found or [name for name in names if name.endswith(GRAPH_SUFFIXES)]
    if len(found) > 1:
        shown = first_few(found, _MAX_NAMED)
        raise CheckpointError(f"{path} holds several graphs; name one: {shown}")
    indices = [name.removesuffix(INDEX_SUFFIX) for name in names if name.endswith(INDEX_SUFFIX)]
    graphless = [name for name in indices if name + META_SUFFIX not in names]
    if found:
        if warn and graphless:
            logging.warning(
                "%s is read; of %s there is no .meta in %s: --ckpt=%s reads their variables",
                found[0],
                first_few(graphless, _MAX_NAMED),
                path,
                os.path.join(path, "<name>" if graphless[1:] else graphless[0]),
            )
        return os.path.join(path, found[0])
    if graphless:
        raise _no_graph(path, os.path.join(path, graphless[-1]))
    raise CheckpointError(
        f"{path} holds no model: no .meta, .pb or saved_model.pb, and no checkpoint "
        f"{layout.BASENAME}-<step>"
    )


def _no_graph(path: str, prefix: str) -> CheckpointError:
    if file_io.exists(prefix + INDEX_SUFFIX):
        return _only_variables(prefix)
    if file_io.exists(path):
        kind = kind_of(read_head(path, HEAD_BYTES)) or "nothing that is known here"
        return CheckpointError(
            f"{path} is no model: it is {kind}; expected a .meta, a checkpoint's prefix, a frozen "
            ".pb or the folder of a SavedModel"
        )
    meta = "" if path.endswith(_SUFFIXES) else f", nor {prefix}{META_SUFFIX}"
    return CheckpointError(f"there is no file {path}{meta}{beside(path, _SUFFIXES)}")


def _only_variables(prefix: str) -> CheckpointError:
    index = prefix + INDEX_SUFFIX
    place = os.path.dirname(prefix)
    saved_model = os.path.dirname(os.path.abspath(place))
    if any(file_io.exists(os.path.join(saved_model, n)) for n in SAVED_MODEL_FILES):
        return CheckpointError(f"{index} is part of a SavedModel: name its folder {saved_model}")
    metas = [name for name in names_in(place) if name.endswith(META_SUFFIX)]
    graph = os.path.join(place, metas[0]) if len(metas) == 1 else "<the .meta of its graph>"
    return CheckpointError(
        f"variables without a graph: {index} is there, {prefix}{META_SUFFIX} is missing; where its "
        f"graph has another name: --meta={graph} --ckpt={prefix}"
    )


# A file of a graph: a `.pb` or `.pbtxt` may hold a frozen graph, a SavedModel or a meta graph.
# Formats: `tensorflow/core/framework/graph.proto`, `tensorflow/core/protobuf/saved_model.proto`.


def parse_graph_file(content: bytes, path: str) -> MetaGraphDef | SavedModel:
    """What the file holds, told by its content, or CheckpointError: any kind may be called `.pb`.

    Of a graph alone, it is a MetaGraphDef with nothing but that graph and its description.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        return parse_message(SavedModel(), content, path)
    bare, whole, saved = MetaGraphDef(), MetaGraphDef(), SavedModel()
    errors = []
    for message in (bare.graph_def, saved, whole):
        try:
            parse_message(message, content, path)
        except CheckpointError as error:
            errors.append(error)
    if _is_graph(bare.graph_def):
        bare.MergeFrom(take_description(bare.graph_def))
        return bare
    if any(_is_graph(meta.graph_def) for meta in saved.meta_graphs):
        return saved
    if _is_graph(whole.graph_def):
        return whole
    raise errors[0] if errors else CheckpointError(f"{path} is no graph: {what_it_is(content)}")


def _is_graph(graph: GraphDef) -> bool:
    """Whether bytes that could be read as a graph are one: each node has a name and an op."""
    return bool(graph.node) and all(node.name and node.op for node in graph.node)


def tagged_graph(saved_model: SavedModel, path: str, tags: str | None) -> MetaGraphDef:
    """The graph of a SavedModel with the `tags`, separated by commas; "" is the one without any.

    By default it is the one that serves, or else the only one that is not for training.
    CheckpointError where there is none, or several.
    """
    found = [(set(g.meta_info_def.tags), g) for g in saved_model.meta_graphs if g.graph_def.node]
    if tags is not None:
        wanted = {*filter(None, tags.split(","))}
        choices = [[graph for own, graph in found if own == wanted]]
    else:
        choices = [[g for own, g in found if own == {_SERVE, *more}] for more in ((), ("gpu",))]
        choices += [[g for own, g in found if _TRAIN not in own], [g for _, g in found]]
    for graphs in choices:
        if len(graphs) == 1:
            return graphs[0]
    told = ", ".join(f"--tags={','.join(graph.meta_info_def.tags)}" for _, graph in found)
    asked = "for prediction alone" if tags is None else f"with --tags={tags} alone"
    has = f"it has {told}" if found else "it holds no graph"
    raise CheckpointError(f"{path} has no graph {asked}: {has}")
