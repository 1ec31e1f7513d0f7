"""A frozen graph as a SavedModel: signatures, labels as an asset, the folder of its version.

A signature may take image files. Version folders are those that TensorFlow Serving watches:
`<model>/1`, `<model>/2`, and so on.

Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints import file_io
from checkpoints.file_io import names_in
from checkpoints.lock import FolderLock
from checkpoints.naming import SIGNATURE
from errors import ToolError
from metagraph.casting import Array
from metagraph.graph import data_inputs
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import RUN, TimeLimit
from metagraph.values import free_scope
from tools.command import quiet
from tools.export_images import ImageInput, rows_from_files
from tools.frozen_graph import TABLE_INITIALIZERS, FrozenGraph

LABELS_FILE = "labels.txt"
_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = ".being-written"
SERVE = tf.compat.v1.saved_model.tag_constants.SERVING
BYTES_SIGNATURE = "serving_bytes"
BYTES_KEY = "image_bytes"
_START = tf.compat.v1.saved_model.constants.MAIN_OP_KEY
_FILE = "saved_model.pb"
_ASSETS = "assets"
_SCHEMA_VERSION = 1  # `saved_model_schema_version`: the only one there has been.


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]


def as_saved_model(
    frozen: FrozenGraph, image: ImageInput | None = None, class_names: Sequence[str] = ()
) -> SavedModel:
    """The content of the file; tensors keep their names.

    With an `image`, there is a signature `BYTES_SIGNATURE` that computes this input from image
    files; with class names, the labels are an asset.
    """
    file = MetaGraphFile("", "", frozen.meta)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.meta.graph_def, name="")
        signatures = {SIGNATURE: _signature(graph, frozen.inputs, frozen.outputs)}
        if image is not None:
            signatures[BYTES_SIGNATURE] = _bytes_signature(graph, frozen, file, image)
        fill = [
            *map(graph.get_operation_by_name, file.collection(TABLE_INITIALIZERS).node_list.value)
        ]
        start = tf.group(*fill, name=free_scope(file, "fill_tables")) if fill else None
        if class_names:
            asset = tf.constant(LABELS_FILE, name=f"{free_scope(file, 'labels')}/file")
        meta = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    meta.meta_info_def.tags[:] = [SERVE]
    for key, collection in frozen.meta.collection_def.items():
        meta.collection_def[key].CopyFrom(collection)
    for name, signature in signatures.items():
        meta.signature_def[name].CopyFrom(signature)
    if start is not None:
        meta.collection_def[_START].node_list.value.append(start.name)
    if class_names:
        meta.asset_file_def.add(filename=LABELS_FILE).tensor_info.name = asset.name
    return SavedModel(saved_model_schema_version=_SCHEMA_VERSION, meta_graphs=[meta])


def write_saved_model(model: SavedModel, folder: str, class_names: Sequence[str] = ()) -> None:
    """Writes what `as_saved_model` has made of the same class names into an empty folder.

    Raises:
      tf.errors.OpError, OSError: the disk refused.
    """
    if class_names:
        tf.io.gfile.makedirs(os.path.join(folder, _ASSETS))
        file_io.write_file(os.path.join(folder, _ASSETS, LABELS_FILE), labels_text(class_names))
    content = model.SerializeToString(deterministic=True)
    file_io.write_file(os.path.join(folder, _FILE), content)


def _signature(
    graph: tf.Graph, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> SignatureDef:
    """One that TensorFlow Serving predicts by."""
    saved_model = tf.compat.v1.saved_model

    def infos(names: Mapping[str, str]) -> dict[str, tf.Tensor]:
        return {
            key: saved_model.build_tensor_info(graph.get_tensor_by_name(name))
            for key, name in names.items()
        }

    method = saved_model.signature_constants.PREDICT_METHOD_NAME
    return saved_model.build_signature_def(infos(inputs), infos(outputs), method)


def _bytes_signature(
    graph: tf.Graph, frozen: FrozenGraph, file: MetaGraphFile, image: ImageInput
) -> SignatureDef:
    """Adds to the default graph what computes the outputs from image files."""
    rows = image.info.shape[0] if image.info.shape else None
    scope = free_scope(file, BYTES_SIGNATURE)
    files = tf.compat.v1.placeholder(tf.string, [rows], free_scope(file, BYTES_KEY))
    with tf.name_scope(f"{scope}/"):
        values = rows_from_files(files, image)
    outputs = _import_again(graph, frozen, {image.info.name: values}, f"{scope}/model")
    others = {key: name for key, name in frozen.inputs.items() if key != image.key}
    return _signature(graph, {BYTES_KEY: files.name, **others}, outputs)


def _import_again(
    graph: tf.Graph, frozen: FrozenGraph, values: Mapping[str, tf.Tensor], scope: str
) -> dict[str, str]:
    """Imports what computes into the default graph again, under a scope that is free.

    What takes nothing is that of the first copy: constants, which hold the weights, so that the
    file grows by kilobytes, and tables, which are filled once; so are inputs without a new value in
    `values`. (A constant inside of a loop takes something: it waits for the loop.)

    Returns:
      The outputs of the second copy: key -> full tensor name.
    """
    graph_def, mapped = frozen.meta.graph_def, dict[str, tf.Tensor]()
    inputs = {node_of(name) for name in frozen.inputs.values()}
    shared = {node.name for node in graph_def.node if node.name in inputs or not node.input}
    copy = GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name in shared:
            continue
        copied = copy.node.add()
        copied.CopyFrom(node)  # But it need not wait for what only gives a value.
        copied.input[:] = [t for t in node.input if t[0] != "^" or t[1:] not in shared]
        for text in data_inputs(copied):
            name = text if ":" in text else f"{text}:0"
            if node_of(text) in shared:
                mapped[name] = values[name] if name in values else graph.get_tensor_by_name(name)
    tf.import_graph_def(copy, input_map=mapped, name=scope)
    outputs = {}
    for key, name in frozen.outputs.items():
        copied_name = name if node_of(name) in shared else f"{scope}/{name}"
        outputs[key] = values[name].name if name in values else copied_name
    return outputs


def run_saved_model(
    folder: str, signature: str, values: Mapping[str, Array], time_limit: TimeLimit
) -> dict[str, Array]:
    """What a SavedModel computes, loaded from the folder of a version, as a server does.

    Inputs and outputs are by the keys of the signature. The folder may hold only what has been
    checked.

    Raises:
      ToolError: it cannot be loaded or run.
    """
    with (
        quiet(),
        time_limit.over(RUN),
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=_as_it_is()) as session,
    ):
        try:
            meta = tf.compat.v1.saved_model.load(session, [SERVE], folder)
            found = meta.signature_def[signature]
            fetches = {key: info.name for key, info in found.outputs.items()}
            feeds = {found.inputs[key].name: value for key, value in values.items()}
            results: dict[str, Array | bytes] = session.run(fetches, feeds)
        except tf.errors.OpError as error:
            raise ToolError(f"the SavedModel does not run{reason_of_run(error)}") from error
    return {
        key: np.asarray(result, object if isinstance(result, bytes) else None)
        for key, result in results.items()
    }


def _as_it_is() -> tf.compat.v1.ConfigProto:
    """Without the rewriting of the graph, each step of which takes a copy of all weights."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    return config


def choose_version(folder: str, asked: int | None) -> int:
    """The version to write into a model's folder, which need not exist.

    It is the one asked for; for None the one above the highest that is there.

    Raises:
      ToolError: the folder is a file, or the version that is asked for exists.
    """
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise ToolError(f"--output={folder} is a file; a SavedModel is a folder of versions")
    names = names_in(folder) if tf.io.gfile.isdir(folder) else []
    there = [int(name) for name in names if _NUMBER.fullmatch(name)]
    if asked is None:
        return max(there, default=0) + 1
    if asked in there:
        raise ToolError(
            f"{os.path.join(folder, str(asked))} exists already: a server may be using it; leave "
            f"out --version for the next one, {max(there) + 1}"
        )
    return asked


@contextmanager
def new_version(folder: str, version: int) -> Iterator[str]:
    """A folder to write a version into, which is in its place where no error comes, or gone.

    A server loads a folder with the name of a number as soon as it is there: it is written under
    another name and renamed.

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
            for path, _, names in tf.io.gfile.walk(temporary):
                for name in (*names, ""):
                    file_io.flush(os.path.join(path, name))
            if tf.io.gfile.exists(final):
                raise ToolError(f"{final} has been written by someone else: run the command again")
            tf.io.gfile.rename(temporary, final)
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


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
