"""One export from start to end: what tools.export does once its flags are read.

The model is frozen and written in one of the formats, and kept if that format's own runtime
computes the same with it. A SavedModel is made in `export_saved_model.py`; here are an ONNX model,
by tf2onnx, and a TFLite model, by TensorFlow's converter.

Inputs and outputs have the very names of their tensors, such as `x:0`: ONNX asks for names as in
the language C, and no runtime insists on that. Operations of TensorFlow beside TFLite's own
("select" ones) are not offered: the interpreter here has no delegate for them, and what cannot be
checked is not kept.
"""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import EncodeError
from tensorflow.core.framework.graph_pb2 import GraphDef

from checkpoints.layout import SIGNATURE
from data import files
from errors import ToolError, first_few, reason
from metagraph.description import Array, Model, TensorInfo, format_shape
from metagraph.graph import attribute_of
from metagraph.meta import MetaGraphFile, node_of
from metagraph.model import checkpoint_of
from metagraph.safety import RUN
from prediction.chosen_model import with_model
from prediction.onnx_file import as_bytes, as_texts, open_session
from prediction.output import check_target, write_whole
from tools.command import Record, check_installed, format_bytes, quiet
from tools.export import ONNX, SAVED_MODEL, TFLITE, ExportConfig
from tools.export_saved_model import (
    CONVERSION,
    LABELS_FILE,
    as_lines,
    export_saved_model,
    labels_text,
    next_version,
    write_saved_model,
)
from tools.freezing import Reference, described, freeze_and_compare, largest_difference
from tools.frozen_graph import FrozenGraph

# A new format is an entry here and in `export.py`, and a branch of `_write_file`.
_RUNTIMES = {ONNX: "onnxruntime", TFLITE: "TFLite's interpreter"}
_CHOICES = frozenset({"Case", "If", "Merge", "StatelessCase", "StatelessIf"})
_MAX_NAMED = 10
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_ERROR = re.compile(r"error: (.+)$", re.MULTILINE)


def export(config: ExportConfig) -> Record:
    """Freezes, converts, compares and writes; tells of it as `docs/json.md` has it.

    Where it fails, nothing is left of what was begun.
    """
    if config.to == ONNX:
        with quiet():
            check_installed(("tf2onnx", "onnxruntime"), "onnx", "an export to ONNX")
    return with_model(config, lambda meta, model: _export(config, meta, model))


def _export(config: ExportConfig, meta: MetaGraphFile, model: Model) -> Record:
    if config.to == SAVED_MODEL:  # Before a long run, it is seen that the result can be written.
        next_version(config.output)
    else:
        read = [meta.path, *config.asset.values()]
        check_target(config.output, read, overwrite=config.overwrite)
    frozen, reference, _ = freeze_and_compare(meta, config)
    signatures: Mapping[str, Mapping[str, TensorInfo]] = {SIGNATURE: frozen.inputs}
    if config.to == SAVED_MODEL:
        path, signatures, difference = export_saved_model(config, frozen, reference)
    else:
        path, difference = config.output, _write_file(config, frozen, reference)
    outputs = described(dict(sorted(frozen.plan.outputs.items())))
    return {
        "format": config.to,
        "path": path,
        "bytes": _size(path),
        "graph": meta.path,
        "checkpoint": checkpoint_of(meta),
        "signatures": {
            name: {"inputs": described(dict(sorted(inputs.items()))), "outputs": outputs}
            for name, inputs in sorted(signatures.items())
        },
        "class_names": list(model.class_names),
        "switched_off": frozen.plan.off_values,
        "random": list(reference.random),
        "largest_difference": difference,
    }


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    walked = tf.io.gfile.walk(path)  # It finds nothing in a file.
    found = [os.path.join(folder, name) for folder, _, names in walked for name in names]
    return sum(map(files.size, found or [path]))


def _write_file(config: ExportConfig, frozen: FrozenGraph, reference: Reference) -> float:
    """Returns the largest difference from the session."""
    if config.to == ONNX and not frozen.inputs:
        raise ToolError(
            f"{', '.join(reference.results)} follow from no input, and tf2onnx converts only what "
            f"has one: export to {SAVED_MODEL} or {TFLITE}"
        )
    for info in frozen.inputs.values():
        if info.shape is None:
            raise ToolError(
                f"{info.name} may have any shape, and {config.to} has to know how many "
                f"dimensions there are: say it, as in --shape={info.name.removesuffix(':0')}="
                + ",".join(map(str, ["?", *reference.feeds[info.name].shape[1:]]))
            )
    with config.limit.over(CONVERSION):
        is_onnx = config.to == ONNX
        content = as_onnx(frozen, config.opset) if is_onnx else as_tflite(frozen)
    with config.limit.over(RUN):
        found = (run_onnx if is_onnx else run_tflite)(content, frozen, reference.feeds)
    difference = largest_difference(reference, found, _RUNTIMES[config.to], config.tolerance)
    write_whole(config.output, content)
    return difference


def as_text(record: Record) -> str:
    """Lines for people."""
    lines = [f"{record['path']}  {record['format']}, {format_bytes(record['bytes'])}"]
    for name, signature in record["signatures"].items():
        lines.append(f"signature {name}")
        for kind in ("inputs", "outputs"):
            for key, tensor in signature[kind].items():
                told = f"{tensor['dtype']} {format_shape(tensor['shape'])}"
                lines.append(f"  {kind[:-1]} {key} = {tensor['name']}  {told}")
    names = as_lines(record["class_names"])
    lines += [f"class names {first_few(names, _MAX_NAMED)}"] if names else []
    lines += [f"switched off {name} = {value}" for name, value in record["switched_off"].items()]
    lines += [f"random, and so not compared: {name}" for name in record["random"]]
    lines.append(f"largest difference from the session {record['largest_difference']:.2g}")
    return "\n".join(lines)


# Formats of one file: how they are made, and what their own runtimes compute with them.


def as_onnx(frozen: FrozenGraph, opset: int) -> bytes:
    """Converts to a serialized ModelProto; its `metadata_props` say what the model says of itself.

    tf2onnx folds constants in a session of its own, so that only a graph may come here whose
    operations have been checked; those that it does not know stay as they are, and onnxruntime
    refuses them. The rank of the inputs has to be known.
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
            is_loop = any(node.op == "Exit" for node in frozen.meta.graph_def.node)
            what = "its loops of TensorFlow 1 (Enter, Exit)" if is_loop else "the graph"
            raise ToolError(f"tf2onnx cannot convert {what}: {reason(error)}") from error
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


def run_onnx(content: bytes, frozen: FrozenGraph, values: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime computes on the processor; values and results are by the tensors' names.

    Values of inputs that the model does not take are left out. Texts are bytes, as TensorFlow has
    them. CheckpointError or ToolError where it lacks an operation, or cannot run the model.
    """
    outputs = list(dict.fromkeys(info.name for info in frozen.plan.outputs.values()))
    session = open_session(content, "the ONNX model")
    taken = {found.name for found in session.get_inputs()}
    fed = {name: as_texts(value) for name, value in values.items() if name in taken}
    try:
        results = [np.asarray(result) for result in session.run(outputs, fed)]
    except Exception as error:  # Its errors have no class in common.
        raise ToolError(f"onnxruntime cannot run the model: {reason(error)}") from error
    return dict(zip(outputs, map(as_bytes, results), strict=True))


def as_tflite(frozen: FrozenGraph) -> bytes:
    """Converts to the content of a file; equal models are equal bytes.

    The labels, where there are class names, are appended as a zip archive, in the way of TFLite's
    own metadata (`unzip -p model.tflite labels.txt` shows them). The rank of the inputs has to be
    known. Raises ToolError where TFLite lacks an operation, or the converter fails otherwise.
    """
    if chosen := sorted(_choices_of_texts(frozen.meta.graph_def)):
        raise ToolError(f"TFLite has no counterpart of {', '.join(chosen)} of texts")
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_saved_model(frozen, folder)
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            file = io.BytesIO(converter.convert())
        except Exception as error:  # The converter raises nearly any kind.
            raise ToolError(_why_no_tflite(error)) from error
    if class_names := frozen.plan.model.class_names:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS_FILE), labels_text(class_names))
    return file.getvalue()


def _choices_of_texts(graph: GraphDef) -> set[str]:
    """The operations of conditionals that give texts, at which its interpreter crashes."""
    found, loops = set[str](), {n.name for n in graph.node if n.op == "NextIteration"}
    functions = (node for function in graph.library.function for node in function.node_def)
    for node in (*graph.node, *functions):
        types = [attribute_of(node, "T").type, *attribute_of(node, "Tout").list.type]
        is_choice = node.op in _CHOICES and not loops.intersection(map(node_of, node.input))
        if is_choice and tf.string.as_datatype_enum in types:
            found |= {"Switch", "Merge"} if node.op == "Merge" else {node.op}
    return found


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
