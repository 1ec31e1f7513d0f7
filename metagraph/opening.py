"""Opens the model, or the checkpoint, that a path stands for.

A path is a `.meta` file, the prefix of a checkpoint or another of its files, a frozen graph, a
SavedModel, or a folder of one. The state file `checkpoint` only chooses among files that are there.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace

from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import file_io
from checkpoints.folder import named_checkpoint, usable_steps
from checkpoints.naming import BASENAME, INDEX_SUFFIX, META_SUFFIX, STATE_FILE, checkpoint_prefix
from errors import CheckpointError, first_few, nearest_names
from file_io import HEAD_BYTES, kind_of, names_in, read_bounded, read_head
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
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_SERVE = "serve"
# Of a SavedModel, the checkpoint's prefix in its folder.
SAVED_MODEL_VARIABLES = os.path.join("variables", "variables")
_SUFFIXES = (META_SUFFIX, *GRAPH_SUFFIXES)
# `.index`, `.data-00000-of-00001`, and `-00000-of-00001` of the format V1.
_PART = re.compile(r"(\.index|\.manifest|\.meta|(\.data)?-\d{5}-of-\d{5})$")
_MAX_NAMED = 10


def open_model(
    path: str, max_bytes: int = DEFAULT_MAX_BYTES, checkpoint: str | None = None
) -> MetaGraphFile:
    """Reads the graph that `path` stands for, and says where its variables are.

    They may be elsewhere, at `checkpoint`, as `find_variables` takes it. Raises CheckpointError
    where the graph has more than `max_bytes`, is not there or not alone, or a part is missing.
    """
    file = find_model(path, warn=checkpoint is None)
    if file.endswith(GRAPH_SUFFIXES):
        found = parse_graph_file(read_bounded(file, max_bytes, MAX_META_FLAG), file)
        if isinstance(found, MetaGraphDef):  # A frozen graph, without variables.
            meta = MetaGraphFile(file, os.path.splitext(file)[0], found)
        else:  # A SavedModel by its content, whatever its name.
            prefix = os.path.join(os.path.dirname(file), SAVED_MODEL_VARIABLES)
            meta = MetaGraphFile(file, prefix, serving_graph(found, file))
    else:
        meta = read_meta_graph(file, max_bytes)
    return meta if checkpoint is None else replace(meta, prefix=find_variables(checkpoint))


def find_model(path: str, warn: bool = True) -> str:
    """The file that holds the graph; it may `warn` of variables in a folder that have none."""
    if file_io.is_folder(path):
        return _in_folder(path, warn)
    is_graph = path.endswith(GRAPH_SUFFIXES)
    prefix = os.path.splitext(path)[0] if is_graph else prefix_of(path)
    file = path if is_graph else prefix + META_SUFFIX
    if file_io.exists(file):
        return file
    raise _no_graph(path, prefix)


def _in_folder(path: str, warn: bool) -> str:
    """The file of the one model in a folder, of its newest checkpoint where there are several."""
    names = names_in(path)
    for name in SAVED_MODEL_FILES:
        if name in names:
            return os.path.join(path, name)
    if steps := usable_steps(path):
        meta = checkpoint_prefix(path, steps[-1]) + META_SUFFIX
        if file_io.exists(meta):
            return meta
        raise _no_graph(meta, meta.removesuffix(META_SUFFIX))
    found = [name for name in names if name.endswith(META_SUFFIX)]
    found = found or [name for name in names if name.endswith(GRAPH_SUFFIXES)]
    found = _of_state_file(path, found, META_SUFFIX)
    if len(found) > 1:
        shown = first_few(found, _MAX_NAMED)
        raise CheckpointError(f"{path} holds {len(found)} graphs; name one: {shown}")
    if found:
        if warn:
            _warn_of_graphless(path, names, found[0])
        return os.path.join(path, found[0])
    raise _nothing_in(path, names)


def _nothing_in(path: str, names: Sequence[str]) -> CheckpointError:
    parts = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if parts:
        return _no_graph(path, os.path.join(path, parts[-1].removesuffix(INDEX_SUFFIX)))
    return CheckpointError(
        f"{path} holds no model: no .meta, .pb or saved_model.pb, and no checkpoint "
        f"{BASENAME}-<step>"
    )


def _of_state_file(path: str, found: list[str], suffix: str) -> list[str]:
    """Of several names, the one that a folder's state file names with this suffix, if any."""
    if len(found) < 2:
        return found
    named = named_checkpoint(os.path.join(path, STATE_FILE))
    return [name for name in found if name == f"{named}{suffix}"] or found


def _warn_of_graphless(path: str, names: list[str], chosen: str) -> None:
    """Says which variables are passed over, as none of these files has their graph."""
    prefixes = [name.removesuffix(INDEX_SUFFIX) for name in names if name.endswith(INDEX_SUFFIX)]
    graphless = [prefix for prefix in prefixes if prefix + META_SUFFIX not in names]
    if graphless:
        logging.warning(
            "%s is read; of %s there is no .meta in %s: --ckpt=%s reads their variables",
            chosen,
            first_few(graphless, _MAX_NAMED),
            path,
            os.path.join(path, "<name>" if graphless[1:] else graphless[0]),
        )


def prefix_of(path: str) -> str:
    """The prefix of the checkpoint that a file is of; of another path, the path itself."""
    return _PART.sub("", path)


def find_variables(path: str) -> str:
    """The prefix of the checkpoint that `path` stands for: of a folder, the newest in it.

    CheckpointError where there is none, or a folder does not say which of several is the newest.
    """
    prefix = prefix_of(path)
    place, base = os.path.split(prefix)
    parts = names_in(place) if file_io.is_folder(place or ".") else []
    # A base may be empty, as that of `model/.index`; of `model/` it is the folder that is meant.
    if (base or path != prefix) and base + INDEX_SUFFIX in parts:
        return prefix
    if file_io.is_folder(path):
        return _newest_in(path)
    if base and any(name == base or prefix_of(name) == base for name in parts):
        return prefix
    raise CheckpointError(
        f"--ckpt={path}: there is no {prefix}{INDEX_SUFFIX}{beside(prefix, (INDEX_SUFFIX,))}"
    )


def _newest_in(path: str) -> str:
    names = names_in(path)
    if any(name in names for name in SAVED_MODEL_FILES):
        return os.path.join(path, SAVED_MODEL_VARIABLES)
    if steps := usable_steps(path):
        return checkpoint_prefix(path, steps[-1])
    found = [prefix_of(name) for name in names if name.endswith(INDEX_SUFFIX)]
    found = _of_state_file(path, found, "")
    if len(found) == 1:
        return os.path.join(path, found[0])
    what = f"{len(found)} checkpoints; name one: {first_few(found, _MAX_NAMED)}"
    raise CheckpointError(f"--ckpt={path}: it holds {what if found else 'no checkpoint'}")


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


def beside(path: str, suffixes: Sequence[str]) -> str:
    """The end of an error line over a missing path: what its folder has of these suffixes."""
    place, name = os.path.split(path.rstrip("/"))
    if not file_io.is_folder(place or "."):
        return f": there is no folder {place}"
    names = names_in(place)
    files = [other for other in names if other.endswith(tuple(suffixes))]
    near = sorted(files, key=lambda other: -difflib.SequenceMatcher(None, other, name).ratio())
    if not name.endswith(tuple(suffixes)):  # It may have been a folder.
        folders = [other for other in names if file_io.is_folder(os.path.join(place, other))]
        near += nearest_names(name, folders)
    return f"; beside it there is {first_few(near, _MAX_NAMED)}" if near else ""


# A file of a graph: a `.pb` or `.pbtxt` may hold a frozen graph, a SavedModel or a meta graph.
# Formats: `tensorflow/core/framework/graph.proto`, `tensorflow/core/protobuf/saved_model.proto`.


def parse_graph_file(content: bytes, path: str) -> MetaGraphDef | SavedModel:
    """What the file holds, told by its content, or CheckpointError: any kind may be called `.pb`.

    Of a graph alone, it is a MetaGraphDef with nothing but that graph and its description.
    """
    if os.path.basename(path) in SAVED_MODEL_FILES:
        return parse_message(SavedModel(), content, path)
    bare, whole, saved = MetaGraphDef(), MetaGraphDef(), SavedModel()
    first_error = None
    for message in (bare.graph_def, saved, whole):
        try:
            parse_message(message, content, path)
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
    """The meta graph with the tag `serve`, or the only one; CheckpointError where it is neither."""
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
