"""A frozen graph as an ONNX model, by tf2onnx, or as a TFLite model, by TensorFlow's converter.

Also what onnxruntime and TFLite's interpreter compute with it. Inputs and outputs have the very
names of their tensors, such as `x:0`: ONNX asks for names as in the language C, and no runtime
insists on that. In TFLite the signature `serving_default` keeps its keys too. Operations of
TensorFlow beside TFLite's own ("select" ones) are not offered: the interpreter here has no delegate
for them, and what cannot be checked is not kept.

Format: `onnx/onnx.proto`; `tensorflow/lite/schema/schema.fbs`.
"""

import io
import json
import logging as std_logging
import re
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import EncodeError

from checkpoints.naming import SIGNATURE
from errors import ToolError, first_few, reason
from metagraph.casting import Array
from tools.command import check_installed, quiet
from tools.export_saved_model import LABELS_FILE, as_saved_model, labels_text, write_saved_model
from tools.frozen_graph import FrozenGraph

if TYPE_CHECKING:
    import onnx

_PACKAGES = ("tf2onnx", "onnxruntime")
_UNCONVERTED = re.compile(r"Failed to convert node '([^']*)'")
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)
_SHOWN = 5


def check_onnx_installed() -> None:
    """Raises ToolError, saying what to install, where tf2onnx or onnxruntime is not there."""
    with quiet():
        check_installed(_PACKAGES, "onnx", "an export to ONNX")


def as_onnx(frozen: FrozenGraph, metadata: Mapping[str, Any], opset: int) -> bytes:
    """Converts to a serialized ModelProto.

    Args:
      frozen: the graph, of inputs whose rank is known. tf2onnx folds its constants in a session of
        its own, so that only a graph may come here whose operations have been checked.
      metadata: JSON values for the model's `metadata_props`.
      opset: the version of ONNX's operations.

    Raises:
      ToolError: ONNX has no counterpart of an operation, or the model is too large.
    """
    import onnx
    import tf2onnx

    with quiet(), _complaints() as complaints:
        try:
            converted, _ = tf2onnx.convert.from_graph_def(
                frozen.meta.graph_def,
                name="frozen graph",
                input_names=list(dict.fromkeys(frozen.inputs.values())),
                output_names=list(dict.fromkeys(frozen.outputs.values())),
                opset=opset,
            )
        except Exception as error:  # tf2onnx raises nearly any kind.
            raise ToolError(_why_no_onnx(error, complaints, frozen)) from error
        _check_operations(converted)
        texts = {key: json.dumps(value) for key, value in metadata.items()}
        onnx.helper.set_model_props(converted, texts)
    try:
        content: bytes = converted.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ToolError(f"an ONNX file has at most 2 GiB: {error}") from error
    return content


def _check_operations(model: "onnx.ModelProto") -> None:
    """Sees that ONNX has each operation: tf2onnx leaves those it does not know as they are."""
    from onnx import defs

    versions = {entry.domain: entry.version for entry in model.opset_import}
    unknown = {
        node.op_type
        for node in _nodes(model.graph)
        if not defs.has(node.op_type, versions.get(node.domain, 0), node.domain)
    }
    if unknown:
        raise ToolError(f"ONNX has no counterpart of {first_few(sorted(unknown), _SHOWN)}")


def _nodes(graph: "onnx.GraphProto") -> "Iterator[onnx.NodeProto]":
    """The nodes of a graph, and of the graphs that are bodies of its loops and conditionals."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, attribute.g):
                yield from _nodes(body)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tf2onnx logs as errors, which says more than what it raises in the end."""
    found: list[str] = []

    class _Keeper(std_logging.Handler):
        def emit(self, record: std_logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, keeper = std_logging.getLogger("tf2onnx"), _Keeper(std_logging.ERROR)
    logger.addHandler(keeper)
    try:
        yield found
    finally:
        logger.removeHandler(keeper)


def _why_no_onnx(error: Exception, complaints: Sequence[str], frozen: FrozenGraph) -> str:
    """One line on what cannot be converted: the first node that failed, where one did."""
    ops = {node.name: node.op for node in frozen.meta.graph_def.node}
    for match in map(_UNCONVERTED.search, complaints):
        if match is not None and match[1] in ops:
            return f"tf2onnx cannot convert {match[1]} ({ops[match[1]]})"
    return f"tf2onnx cannot convert the graph: {reason(error)}"


def run_onnx(
    content: bytes, values: Mapping[str, Array], outputs: Collection[str]
) -> dict[str, Array]:
    """What onnxruntime computes on the processor; inputs and outputs are by name.

    It is run without its optimizations where they fail, and that is warned of. Values of inputs
    that the model does not take are left out.

    Raises:
      ToolError: it cannot load or run the model.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    try:
        return _run_onnx(content, values, outputs, levels.ORT_ENABLE_ALL)
    except ToolError as error:
        results = _run_onnx(content, values, outputs, levels.ORT_DISABLE_ALL)
        logging.warning(
            "it runs only without onnxruntime's optimizations: set graph_optimization_level of "
            "its SessionOptions to ORT_DISABLE_ALL; with them %s",
            error,
        )
        return results


def _run_onnx(
    content: bytes, values: Mapping[str, Array], outputs: Collection[str], level: Any
) -> dict[str, Array]:
    """One run, with as much optimization as `level` says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    with quiet():
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            taken = {found.name for found in session.get_inputs()}
            fed = {name: value for name, value in values.items() if name in taken}
            results = session.run([*outputs], fed)
        except Exception as error:  # Its errors have no class in common.
            raise ToolError(f"onnxruntime cannot run the model: {reason(error)}") from error
    return dict(zip(outputs, map(_as_bytes, results), strict=True))


def _as_bytes(result: Any) -> Array:
    """Strings as TensorFlow gives them: bytes, and not texts."""
    array = np.asarray(result)
    if array.dtype.kind not in "OU":
        return array
    flat = [text.encode() if isinstance(text, str) else text for text in array.ravel().tolist()]
    return np.array(flat, object).reshape(array.shape)


def as_tflite(frozen: FrozenGraph, class_names: Sequence[str] = ()) -> bytes:
    """Converts to the content of a file.

    The labels, where there are class names, are appended as a zip archive, in the way of TFLite's
    own metadata (`unzip -p model.tflite labels.txt` shows them). Equal models are equal bytes.

    Args:
      frozen: the graph, of inputs whose rank is known.
      class_names: of the labels; none for no labels.

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
