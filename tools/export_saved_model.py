"""A frozen graph as a SavedModel: signatures, labels as an asset, the folder of its version.

A signature may take image files. Version folders are those that TensorFlow Serving watches:
`<model>/1`, `<model>/2`, and so on.

Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.
"""

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpoints import file_io
from checkpoints.folder import names_in
from checkpoints.manifest import SIGNATURE
from errors import ToolError
from metagraph.casting import Array
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, TensorInfo, node_of
from metagraph.safety import RUN, TimeLimit
from metagraph.values import free_scope
from tools.command import quiet
from tools.export_images import ImageInput, rows_from_files
from tools.frozen_graph import TABLE_INITIALIZERS, FrozenGraph, signature_of

LABELS_FILE = "labels.txt"
SERVE = tf.compat.v1.saved_model.tag_constants.SERVING
BYTES_SIGNATURE = "serving_bytes"
BYTES_KEY = "image_bytes"
_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = "being-written"
_START = tf.compat.v1.saved_model.constants.MAIN_OP_KEY
_FILE = "saved_model.pb"
_ASSETS = "assets"
_SCHEMA_VERSION = 1  # `saved_model_schema_version`: the only one there has been.


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def as_saved_model(
    frozen: FrozenGraph, image: ImageInput | None = None, class_names: Sequence[str] = ()
) -> SavedModel:
    """The content of the file; tensors keep their names.

    With an `image`, there is a signature `BYTES_SIGNATURE` too: where this input is not fed, it is
    computed from image files. With class names, the labels are an asset.
    """
    file, outputs = MetaGraphFile("", "", frozen.meta), frozen.plan.outputs
    signatures = {SIGNATURE: signature_of(frozen.inputs, outputs)}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.meta.graph_def, name="")
        if image is not None:
            rows = image.info.shape[0] if image.info.shape else None
            contents = tf.compat.v1.placeholder(tf.string, [rows], free_scope(file, BYTES_KEY))
            with tf.name_scope(f"{free_scope(file, BYTES_SIGNATURE)}/"):
                values = rows_from_files(contents, image)
            inputs = {BYTES_KEY: TensorInfo(contents.name, tf.string, (rows,)), **frozen.inputs}
            del inputs[image.key]
            signatures[BYTES_SIGNATURE] = signature_of(inputs, outputs)
        names = file.collection(TABLE_INITIALIZERS).node_list.value
        fill = [graph.get_operation_by_name(name) for name in names]
        start = tf.group(*fill, name=free_scope(file, "fill_tables")) if fill else None
        if class_names:
            asset = tf.constant(LABELS_FILE, name=f"{free_scope(file, 'labels')}/file")
        meta = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    if image is not None:
        (fed,) = (n for n in meta.graph_def.node if n.name == node_of(image.info.name))
        fed.op = "PlaceholderWithDefault"
        fed.input.append(values.op.name)
    meta.meta_info_def.tags[:] = [SERVE]
    for key, collection in frozen.meta.collection_def.items():
        meta.collection_def[key].CopyFrom(collection)
    for key, signature in signatures.items():
        meta.signature_def[key].CopyFrom(signature)
    if start is not None:
        meta.collection_def[_START].node_list.value.append(start.name)
    if class_names:
        meta.asset_file_def.add(filename=LABELS_FILE).tensor_info.name = asset.name
    return SavedModel(saved_model_schema_version=_SCHEMA_VERSION, meta_graphs=[meta])


def write_saved_model(model: SavedModel, folder: str, class_names: Sequence[str] = ()) -> None:
    """Writes what `as_saved_model` has made of the same class names into an empty folder."""
    if class_names:
        tf.io.gfile.makedirs(os.path.join(folder, _ASSETS))
        file_io.write_file(os.path.join(folder, _ASSETS, LABELS_FILE), labels_text(class_names))
    content = model.SerializeToString(deterministic=True)
    file_io.write_file(os.path.join(folder, _FILE), content)


def run_saved_model(
    folder: str, signature: str, values: Mapping[str, Array], time_limit: TimeLimit
) -> dict[str, Array]:
    """What a SavedModel computes, loaded from the folder of a version, as a server does.

    Values and results are by the names of tensors. The folder may hold only what has been checked.
    Raises ToolError where it cannot be loaded or run.
    """
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # Each step of the rewriting of graphs would take a copy of all weights.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1  # L0; 0 is its default, L1.
    with (
        quiet(),
        time_limit.over(RUN),
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=config) as session,
    ):
        try:
            meta = tf.compat.v1.saved_model.load(session, [SERVE], folder)
            found = meta.signature_def[signature]
            names = {info.name for info in found.outputs.values()}
            feeds = {info.name: values[info.name] for info in found.inputs.values()}
            results = session.run({name: name for name in names}, feeds)
        except tf.errors.OpError as error:
            raise ToolError(f"the SavedModel does not run{reason_of_run(error)}") from error
    return {  # A single text comes as bytes, not as an array.
        name: np.asarray(result, object if isinstance(result, bytes) else None)
        for name, result in results.items()
    }


def next_version(folder: str) -> int:
    """The version to write into a model's folder, which need not exist: one above the highest."""
    if not tf.io.gfile.exists(folder):
        return 1
    if not tf.io.gfile.isdir(folder):
        raise ToolError(f"--output={folder} is a file; a SavedModel is a folder of versions")
    return 1 + max((int(n) for n in names_in(folder) if _NUMBER.fullmatch(n)), default=0)


@contextmanager
def new_version(path: str) -> Iterator[str]:
    """A folder to write a version into, which is at `path` where no error comes, or gone.

    A server loads a folder with the name of a number as soon as it is there: it is written under
    another name and renamed.

    Raises:
      tf.errors.OpError: the disk refused, or another has written this version in the meantime.
    """
    folder, temporary = os.path.dirname(path), f"{path}.{uuid.uuid4().hex}.{_BEING_WRITTEN}"
    is_new = not tf.io.gfile.isdir(folder)
    try:
        tf.io.gfile.makedirs(temporary)
        yield temporary
        for parent, _, names in tf.io.gfile.walk(temporary):
            for name in (*names, ""):
                file_io.flush(os.path.join(parent, name))
        tf.io.gfile.rename(temporary, path)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.rmtree(temporary)
        with suppress(OSError):  # There is something in it.
            if is_new:
                os.rmdir(folder)
        raise
    file_io.flush(folder)
