"""A frozen graph as an ONNX model, by tf2onnx, or as a TFLite model, by TensorFlow's converter.

Also what onnxruntime and TFLite's interpreter compute with it. Inputs and outputs have the very
names of their tensors, such as `x:0`: ONNX asks for names as in the language C, and no runtime
insists on that. In TFLite the signature `serving_default` keeps its keys too. Operations of
TensorFlow beside TFLite's own ("select" ones) are not offered: the interpreter here has no delegate
for them, and what cannot be checked is not kept.
"""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import EncodeError

from checkpoints.manifest import SIGNATURE
from errors import ToolError, reason
from metagraph.casting import Array
from tools.command import quiet
from tools.export_saved_model import LABELS_FILE, as_saved_model, labels_text, write_saved_model
from tools.frozen_graph import FrozenGraph

_UNKNOWN = re.compile(r"No Op registered for (\S+)")
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)


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
        told = {"inputs": inputs, "outputs": outputs}
        for key in ("class_names", "input_scale", "image_shape", "trained_on"):
            told[key] = getattr(frozen.plan.model, key)
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
            fed = {name: value for name, value in values.items() if name in taken}
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
    for index, result in enumerate(results):
        if result.dtype.kind in "OU":
            results[index] = np.char.encode(result.astype(str)).astype(object)
    return dict(zip(outputs, results, strict=True))


def as_tflite(frozen: FrozenGraph) -> bytes:
    """Converts to the content of a file; equal models are equal bytes.

    The labels, where there are class names, are appended as a zip archive, in the way of TFLite's
    own metadata (`unzip -p model.tflite labels.txt` shows them). The rank of the inputs has to be
    known. Raises ToolError where TFLite lacks an operation, or the converter fails otherwise.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_saved_model(as_saved_model(frozen), folder)
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            file = io.BytesIO(converter.convert())
        except Exception as error:  # The converter raises nearly any kind.
            raise ToolError(_why_no_tflite(error)) from error
    if class_names := frozen.plan.model.class_names:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS_FILE), labels_text(class_names))
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
