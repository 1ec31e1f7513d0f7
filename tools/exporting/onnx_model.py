"""A frozen graph as an ONNX model, by tf2onnx.

Format: `onnx/onnx.proto`. Inputs and outputs have the very names of their tensors, such as `x:0`:
the standard asks for names as in the language C, and no runtime insists on that.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf.message import EncodeError

from checkpoints.errors import first_few, reason
from tools.common.errors import ToolError
from tools.common.extras import check_installed
from tools.exporting.quiet import quiet
from tools.freezing.frozen_graph import FrozenGraph

if TYPE_CHECKING:
    import onnx

_PACKAGES = ("tf2onnx", "onnxruntime")
_UNCONVERTED = re.compile(r"Failed to convert node '([^']*)'")
_SHOWN = 5


def check_onnx_installed() -> None:
    """Raises ToolError, saying what to install, where tf2onnx or onnxruntime is not there."""
    with quiet():
        check_installed(_PACKAGES, "onnx", "an export to ONNX")


def as_onnx(frozen: FrozenGraph, metadata: Mapping[str, Any], opset: int) -> bytes:
    """Converts.

    Args:
      frozen: the graph, of inputs whose rank is known. tf2onnx folds its constants in a session of
        its own, so that only a graph may come here whose operations have been checked.
      metadata: JSON values for the model's `metadata_props`.
      opset: the version of ONNX's operations.

    Returns:
      A ModelProto, serialized.

    Raises:
      ToolError: ONNX has no counterpart of an operation, or the model is too large.
    """
    import onnx

    with quiet(), _complaints() as complaints:
        try:
            converted = _converted(frozen, opset)
        except Exception as error:  # tf2onnx raises nearly any kind.
            raise ToolError(_why(error, complaints, frozen)) from error
        _check_operations(converted)
        texts = {key: json.dumps(value) for key, value in metadata.items()}
        onnx.helper.set_model_props(converted, texts)
    try:
        content: bytes = converted.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ToolError(f"an ONNX file has at most 2 GiB: {error}") from error
    return content


def _converted(frozen: FrozenGraph, opset: int) -> "onnx.ModelProto":
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(
        frozen.meta.graph_def,
        name="frozen graph",
        input_names=list(dict.fromkeys(frozen.inputs.values())),
        output_names=list(dict.fromkeys(frozen.outputs.values())),
        opset=opset,
    )
    return model


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

    class _Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, keeper = logging.getLogger("tf2onnx"), _Keeper(logging.ERROR)
    logger.addHandler(keeper)
    try:
        yield found
    finally:
        logger.removeHandler(keeper)


def _why(error: Exception, complaints: Sequence[str], frozen: FrozenGraph) -> str:
    """One line on what cannot be converted: the first node that failed, where one did."""
    ops = {node.name: node.op for node in frozen.meta.graph_def.node}
    for match in map(_UNCONVERTED.search, complaints):
        if match is not None and match[1] in ops:
            return f"tf2onnx cannot convert {match[1]} ({ops[match[1]]})"
    return f"tf2onnx cannot convert the graph: {reason(error)}"
