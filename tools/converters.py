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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import EncodeError

from checkpoints.manifest import SIGNATURE
from errors import ToolError, reason
from metagraph.casting import Array
from tools.command import check_installed, quiet
from tools.export_saved_model import LABELS_FILE, as_saved_model, labels_text, write_saved_model
from tools.frozen_graph import FrozenGraph

_PACKAGES = ("tf2onnx", "onnxruntime")
_UNKNOWN = re.compile(r"No Op registered for (\S+)")
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)


def check_onnx_installed() -> None:
    """Raises ToolError, saying what to install, where tf2onnx or onnxruntime is not there."""
    with quiet():
        check_installed(_PACKAGES, "onnx", "an export to ONNX")


def as_onnx(frozen: FrozenGraph, metadata: Mapping[str, Any], opset: int) -> bytes:
    """Converts to a serialized ModelProto.

    tf2onnx leaves operations that it does not know as they are, which onnxruntime then refuses.

    Args:
      frozen: the graph, of inputs whose rank is known. tf2onnx folds its constants in a session of
        its own, so that only a graph may come here whose operations have been checked.
      metadata: JSON values for the model's `metadata_props`.
      opset: the version of ONNX's operations.

    Raises:
      ToolError: tf2onnx fails, or the model is too large.
    """
    import onnx
    import tf2onnx

    with quiet():
        try:
            converted, _ = tf2onnx.convert.from_graph_def(
                frozen.meta.graph_def,
                name="frozen graph",
                input_names=list(dict.fromkeys(info.name for info in frozen.inputs.values())),
                output_names=list(dict.fromkeys(i.name for i in frozen.plan.outputs.values())),
                opset=opset,
            )
        except Exception as error:  # tf2onnx raises nearly any kind.
            raise ToolError(f"tf2onnx cannot convert the graph: {reason(error)}") from error
        texts = {key: json.dumps(value) for key, value in metadata.items()}
        onnx.helper.set_model_props(converted, texts)
    try:
        content: bytes = converted.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ToolError(f"an ONNX file has at most 2 GiB: {error}") from error
    return content


def run_onnx(
    content: bytes, values: Mapping[str, Array], outputs: Sequence[str], *, optimize: bool = True
) -> dict[str, Array]:
    """What onnxruntime computes on the processor; inputs and outputs are by name.

    It is run without its optimizations where they fail, and that is warned of. Values of inputs
    that the model does not take are left out. Texts are bytes, as TensorFlow has them.

    Raises:
      ToolError: it has no counterpart of an operation, or cannot load or run the model otherwise.
    """
    import onnxruntime

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
        plain = run_onnx(content, values, outputs, optimize=False)
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


def as_tflite(frozen: FrozenGraph, class_names: Sequence[str] = ()) -> bytes:
    """Converts to the content of a file; equal models are equal bytes.

    The labels, where there are class names, are appended as a zip archive, in the way of TFLite's
    own metadata (`unzip -p model.tflite labels.txt` shows them). `frozen` has inputs whose rank is
    known.

    Raises:
      ToolError: TFLite lacks an operation, or the converter fails otherwise.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_saved_model(as_saved_model(frozen), folder)
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            file = io.BytesIO(converter.convert())
        except Exception as error:  # The converter raises nearly any kind.
            raise ToolError(_why_no_tflite(error)) from error
    if class_names:
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


def run_tflite(content: bytes, values: Mapping[str, Array]) -> dict[str, Array]:
    """What TFLite's interpreter computes; inputs and outputs are by the signature's keys.

    Raises:
      ToolError: it cannot load or run the model.
    """
    with quiet():  # TensorFlow warns that its interpreter will be a package of its own some day.
        try:
            runner = tf.lite.Interpreter(model_content=content).get_signature_runner(SIGNATURE)
            taken = runner.get_input_details()
            results = runner(**{key: value for key, value in values.items() if key in taken})
        except Exception as error:  # A ValueError, a RuntimeError or others, as it comes.
            raise ToolError(
                f"the TFLite interpreter cannot run the model: {reason(error)}"
            ) from error
    return {key: np.asarray(result) for key, result in results.items()}
