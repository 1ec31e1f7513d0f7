"""A frozen graph in the formats of other programs, and what their runtimes compute with it.

A SavedModel, whose version folders are those that TensorFlow Serving watches, `<model>/1` and so
on; an ONNX model, by tf2onnx; a TFLite model, by TensorFlow's converter. Inputs and outputs have
the very names of their tensors, such as `x:0`: ONNX asks for names as in the language C, and no
runtime insists on that. Operations of TensorFlow beside TFLite's own ("select" ones) are not
offered: the interpreter here has no delegate for them, and what cannot be checked is not kept.

Format: `tensorflow/core/protobuf/saved_model.proto`, `tensorflow/core/protobuf/meta_graph.proto`.
"""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import EncodeError
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import file_io
from checkpoints.lock import FolderLock
from checkpoints.naming import SIGNATURE
from errors import ToolError, reason
from file_io import names_in
from metagraph.description import Array, TensorInfo
from metagraph.importing import reason_of_run
from metagraph.meta import MetaGraphFile, node_of
from metagraph.safety import RUN, TimeLimit
from metagraph.session import free_scope
from prediction.onnx_file import as_bytes, as_texts
from tools.command import quiet
from tools.export_images import ImageInput, rows_from_files
from tools.frozen_graph import TABLE_INITIALIZERS, FrozenGraph, signature_of

BYTES_SIGNATURE, BYTES_KEY = "serving_bytes", "image_bytes"
_LABELS_FILE = "labels.txt"
_SERVE = tf.compat.v1.saved_model.tag_constants.SERVING
_START = tf.compat.v1.saved_model.constants.MAIN_OP_KEY
_SCHEMA_VERSION = 1  # `saved_model_schema_version`: the only one there has been.
_NUMBER = re.compile(r"[0-9]{1,18}")
_BEING_WRITTEN = ".being-written"
_LEFT = re.compile(rf"[0-9]+(\.[0-9a-f]+)?{re.escape(_BEING_WRITTEN)}")  # Some have had a number.
_UNKNOWN = re.compile(r"No Op registered for (\S+)")
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)


def as_lines(class_names: Sequence[str]) -> list[str]:
    """Each name on one line: a line break inside of one, were there any, is a space."""
    return [" ".join(name.splitlines()) for name in class_names]


def labels_text(class_names: Sequence[str]) -> bytes:
    """The file's content in UTF-8."""
    return "".join(f"{line}\n" for line in as_lines(class_names)).encode()


def write_saved_model(
    frozen: FrozenGraph, folder: str, image: ImageInput | None = None
) -> dict[str, Mapping[str, TensorInfo]]:
    """Writes a SavedModel into an empty folder; returns the inputs of its signatures.

    Tensors keep their names. With an `image`, there is a signature `BYTES_SIGNATURE` too: where
    this input is not fed, it is computed from image files. Class names are an asset.
    """
    meta, inputs = _serving_graph(frozen, image)
    if names := frozen.plan.model.class_names:
        assets = os.path.join(folder, "assets")
        tf.io.gfile.makedirs(assets)
        file_io.write_file(os.path.join(assets, _LABELS_FILE), labels_text(names))
        file_io.flush(assets)
    model = SavedModel(saved_model_schema_version=_SCHEMA_VERSION, meta_graphs=[meta])
    content = model.SerializeToString(deterministic=True)
    file_io.write_file(os.path.join(folder, "saved_model.pb"), content)
    return inputs


def _serving_graph(
    frozen: FrozenGraph, image: ImageInput | None
) -> tuple[MetaGraphDef, dict[str, Mapping[str, TensorInfo]]]:
    """What a SavedModel holds, and the inputs of its signatures."""
    file, inputs = MetaGraphFile("", "", frozen.meta), {SIGNATURE: frozen.inputs}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.meta.graph_def, name="")
        if image is not None:
            rows = image.info.shape[0] if image.info.shape else None
            contents = tf.compat.v1.placeholder(tf.string, [rows], free_scope(file, BYTES_KEY))
            with tf.name_scope(f"{free_scope(file, BYTES_SIGNATURE)}/"):
                values = rows_from_files(contents, image)
            others = {key: info for key, info in frozen.inputs.items() if key != image.key}
            encoded = TensorInfo(contents.name, tf.string, (rows,))
            inputs[BYTES_SIGNATURE] = {BYTES_KEY: encoded, **others}
        names = file.collection(TABLE_INITIALIZERS).node_list.value
        fill = [graph.get_operation_by_name(name) for name in names]
        start = tf.group(*fill, name=free_scope(file, "fill_tables")) if fill else None
        if frozen.plan.model.class_names:
            asset = tf.constant(_LABELS_FILE, name=f"{free_scope(file, 'labels')}/file")
        meta = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    if image is not None:
        (fed,) = (n for n in meta.graph_def.node if n.name == node_of(image.info.name))
        fed.op = "PlaceholderWithDefault"
        fed.input.append(values.op.name)
    meta.meta_info_def.tags[:] = [_SERVE]
    for key, collection in frozen.meta.collection_def.items():
        meta.collection_def[key].CopyFrom(collection)
    for key, infos in inputs.items():
        meta.signature_def[key].CopyFrom(signature_of(infos, frozen.plan.outputs))
    if start is not None:
        meta.collection_def[_START].node_list.value.append(start.name)
    if frozen.plan.model.class_names:
        meta.asset_file_def.add(filename=_LABELS_FILE).tensor_info.name = asset.name
    return meta, inputs


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
            meta = tf.compat.v1.saved_model.load(session, [_SERVE], folder)
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
    another name and renamed. Meanwhile the model's folder is locked, so that what exports that were
    killed have left there can go. Raises CheckpointError where another export has the lock, OSError
    or tf.errors.OpError where the disk refuses.
    """
    folder, temporary = os.path.dirname(path), path + _BEING_WRITTEN
    is_new = not tf.io.gfile.isdir(folder)
    tf.io.gfile.makedirs(folder)
    try:
        with FolderLock(folder, "take another --output", keeps_file=False):
            for left in filter(_LEFT.fullmatch, names_in(folder)):
                tf.io.gfile.rmtree(os.path.join(folder, left))
            try:
                tf.io.gfile.makedirs(temporary)
                yield temporary
                file_io.flush(temporary)
                tf.io.gfile.rename(temporary, path)
            finally:
                if tf.io.gfile.exists(temporary):
                    tf.io.gfile.rmtree(temporary)
            file_io.flush(folder)
    finally:
        if is_new and not names_in(folder):
            tf.io.gfile.rmtree(folder)


def as_onnx(frozen: FrozenGraph, opset: int) -> bytes:
    """Converts to a serialized ModelProto; its `metadata_props` say what the model says of itself.

    tf2onnx folds constants in a session of its own, so that only a graph may come here whose
    operations have been checked; those that it does not know stay as they are, and onnxruntime
    refuses them.

    The rank of the inputs has to be known. Raises ToolError where tf2onnx fails, or the model is
    too large.
    """
    import onnx
    import tf2onnx

    inputs = {key: info.name for key, info in frozen.inputs.items()}
    outputs = {key: info.name for key, info in frozen.plan.outputs.items()}
    with quiet():
        try:
            converted, _ = tf2onnx.convert.from_graph_def(
                frozen.meta.graph_def,
                name="frozen graph",
                input_names=list(dict.fromkeys(inputs.values())),
                output_names=list(dict.fromkeys(outputs.values())),
                opset=opset,
            )
        except Exception as error:  # tf2onnx raises nearly any kind.
            raise ToolError(f"tf2onnx cannot convert the graph: {reason(error)}") from error
        told: dict[str, object] = {"inputs": inputs, "outputs": outputs}
        for key in ("class_names", "input_scale", "image_shape", "trained_on"):
            told[key] = getattr(frozen.plan.model, key)
        told["predict"] = [name for name in frozen.plan.model.predict if name in outputs.values()]
        texts = {key: json.dumps(value) for key, value in told.items() if value}
        onnx.helper.set_model_props(converted, texts)
    try:
        content: bytes = converted.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ToolError(f"an ONNX file has at most 2 GiB: {error}") from error
    return content


def run_onnx(
    content: bytes, frozen: FrozenGraph, values: Mapping[str, Array], *, optimize: bool = True
) -> dict[str, Array]:
    """What onnxruntime computes on the processor; values and results are by the tensors' names.

    It is run without its optimizations where they fail, and that is warned of. Values of inputs
    that the model does not take are left out. Texts are bytes, as TensorFlow has them. Raises
    ToolError where it lacks an operation, or cannot load or run the model otherwise.
    """
    import onnxruntime

    outputs = list(dict.fromkeys(info.name for info in frozen.plan.outputs.values()))
    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    try:
        with quiet():
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            taken = {found.name for found in session.get_inputs()}
            fed = {name: as_texts(value) for name, value in values.items() if name in taken}
            results = [np.asarray(result) for result in session.run(outputs, fed)]
    except Exception as error:  # Its errors have no class in common.
        if unknown := _UNKNOWN.search(str(error)):
            raise ToolError(f"ONNX has no counterpart of {unknown[1]}") from error
        if not optimize:
            raise ToolError(f"onnxruntime cannot run the model: {reason(error)}") from error
        plain = run_onnx(content, frozen, values, optimize=False)
        logging.warning(
            "it runs only without onnxruntime's optimizations: set graph_optimization_level of "
            "its SessionOptions to ORT_DISABLE_ALL; with them %s",
            reason(error),
        )
        return plain
    return dict(zip(outputs, map(as_bytes, results), strict=True))


def as_tflite(frozen: FrozenGraph) -> bytes:
    """Converts to the content of a file; equal models are equal bytes.

    The labels, where there are class names, are appended as a zip archive, in the way of TFLite's
    own metadata (`unzip -p model.tflite labels.txt` shows them). The rank of the inputs has to be
    known. Raises ToolError where TFLite lacks an operation, or the converter fails otherwise.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_saved_model(frozen, folder)
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            file = io.BytesIO(converter.convert())
        except Exception as error:  # The converter raises nearly any kind.
            raise ToolError(_why_no_tflite(error)) from error
    if class_names := frozen.plan.model.class_names:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(zipfile.ZipInfo(_LABELS_FILE), labels_text(class_names))
    return file.getvalue()


def _why_no_tflite(error: Exception) -> str:
    """One line, out of the many of the converter's message."""
    text = str(error)
    lacking = sorted({op.strip() for ops in _LACKING.findall(text) for op in ops.split(",")})
    if lacking:
        return f"TFLite has no counterpart of {', '.join(lacking)}, for the dtypes that are here"
    found = _ERROR.search(text)
    return f"TFLite's converter fails: {found[1] if found else reason(error)}"


def run_tflite(
    content: bytes, frozen: FrozenGraph, values: Mapping[str, Array]
) -> dict[str, Array]:
    """What TFLite's interpreter computes; values and results are by the tensors' names."""
    with quiet():  # TensorFlow warns that its interpreter will be a package of its own some day.
        try:
            runner = tf.lite.Interpreter(model_content=content).get_signature_runner(SIGNATURE)
            taken = runner.get_input_details()
            inputs = {k: values[i.name] for k, i in frozen.inputs.items() if k in taken}
            results = runner(**inputs)
        except Exception as error:  # A ValueError, a RuntimeError or others, as it comes.
            raise ToolError(
                f"the TFLite interpreter cannot run the model: {reason(error)}"
            ) from error
    return {info.name: np.asarray(results[key]) for key, info in frozen.plan.outputs.items()}
