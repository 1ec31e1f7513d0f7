"""What onnxruntime computes with an ONNX model, on the processor."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from absl import logging

from checkpoints.errors import reason
from prediction.casting import Array
from tools.common.errors import ToolError
from tools.exporting.quiet import quiet


def run_onnx(
    content: bytes, values: Mapping[str, Array], outputs: Collection[str]
) -> dict[str, Array]:
    """Runs a model once; without onnxruntime's optimizations where they fail, which it warns of.

    Args:
      content: a ModelProto, serialized.
      values: of the inputs, by name; those that the model does not take are left out.
      outputs: names.

    Returns:
      The outputs, by name.

    Raises:
      ToolError: it cannot load or run the model.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    try:
        return _run(content, values, outputs, levels.ORT_ENABLE_ALL)
    except ToolError as error:
        results = _run(content, values, outputs, levels.ORT_DISABLE_ALL)
        logging.warning(
            "it runs only without onnxruntime's optimizations: set graph_optimization_level of "
            "its SessionOptions to ORT_DISABLE_ALL; with them %s",
            error,
        )
        return results


def _run(
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
    return {
        name: _as_bytes(np.asarray(result)) for name, result in zip(outputs, results, strict=True)
    }


def _as_bytes(result: Array) -> Array:
    """Strings as TensorFlow gives them: bytes, and not texts."""
    if result.dtype.kind not in "OU":
        return result
    flat = [text.encode() if isinstance(text, str) else text for text in result.ravel().tolist()]
    return np.array(flat, object).reshape(result.shape)
