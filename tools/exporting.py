"""One export from start to end: what tools.export does once its flags are read.

The model is frozen and written in one of the formats, and kept if that format's own runtime
computes the same with it.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.naming import SIGNATURE
from data import files
from errors import ToolError, first_few
from metagraph.description import Model, TensorInfo, format_shape
from metagraph.meta import PLACEHOLDERS, MetaGraphFile, node_of
from metagraph.model import checkpoint_of
from metagraph.safety import RUN
from metagraph.session import describe_tensors
from prediction.chosen_model import with_model
from prediction.output import check_target, write_whole
from tools.command import Record, check_installed, format_bytes, quiet
from tools.export import ONNX, SAVED_MODEL, ExportConfig, Shape
from tools.export_formats import (
    BYTES_KEY,
    BYTES_SIGNATURE,
    as_lines,
    as_onnx,
    as_tflite,
    new_version,
    next_version,
    run_onnx,
    run_saved_model,
    run_tflite,
    write_saved_model,
)
from tools.export_images import example_files, find_image_input, rows_of
from tools.freezing import (
    Reference,
    described,
    freeze_and_compare,
    largest_difference,
    run_frozen,
)
from tools.frozen_graph import FrozenGraph

_CONVERSION = "the conversion"
_MAX_NAMED = 10
# The path that is written, its signatures' inputs, and the largest difference from the session.
_Written: TypeAlias = tuple[str, Mapping[str, Mapping[str, TensorInfo]], float]


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
    if config.shapes:
        meta = with_shapes(meta, config.shapes, model)
    frozen, reference, _ = freeze_and_compare(meta, config)
    write = _write_saved_model if config.to == SAVED_MODEL else _write_file
    path, signatures, difference = write(config, frozen, reference)
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
    found = [files.join(folder, name) for folder, _, names in walked for name in names]
    return sum(map(files.size, found or [path]))


def with_shapes(meta: MetaGraphFile, shapes: Mapping[str, Shape], model: Model) -> MetaGraphFile:
    """The same file with shapes for placeholders, by tensor, or key of its signature.

    Raises ToolError where a tensor is no placeholder, or has another shape already.
    """
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    nodes = {node.name: node for node in proto.graph_def.node}
    by_name = {meta.tensor_name(text, model.feed_keys): shape for text, shape in shapes.items()}
    for info in describe_tensors(meta, [*by_name]):
        shape, node = by_name[info.name], nodes[node_of(info.name)]
        if node.op not in PLACEHOLDERS:
            raise ToolError(f"--shape: {info.name} is no placeholder, and has the shape it has")
        if not tf.TensorShape(shape).is_compatible_with(tf.TensorShape(info.shape)):
            raise ToolError(
                f"--shape: {info.name} is {format_shape(info.shape)}, which {format_shape(shape)} "
                "does not go with"
            )
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
        node.attr.pop("_output_shapes", None)  # The graphs of old producers have it here.
    return dataclasses.replace(meta, proto=proto)


def _write_saved_model(config: ExportConfig, frozen: FrozenGraph, reference: Reference) -> _Written:
    limit, image = config.limit, find_image_input(frozen.inputs, frozen.plan.model)
    path = os.path.join(config.output, str(next_version(config.output)))
    with files.refusals_as_data_errors(config.output), new_version(path) as folder:
        with limit.over(_CONVERSION):
            signatures = write_saved_model(frozen, folder, image)
        found = run_saved_model(folder, SIGNATURE, reference.feeds, limit)
        difference = largest_difference(reference, found, "the SavedModel", config.tolerance)
        if image is not None:
            name, contents = image.info.name, example_files(image, reference.feeds)
            asked = reference._replace(feeds={**reference.feeds, name: rows_of(contents, image)})
            asked = asked._replace(results=run_frozen(frozen, asked, config))
            fed = {signatures[BYTES_SIGNATURE][BYTES_KEY].name: np.array(contents, object)}
            found = run_saved_model(folder, BYTES_SIGNATURE, {**reference.feeds, **fed}, limit)
            what = "the SavedModel on image files"
            on_files = largest_difference(asked, found, what, config.tolerance)
            difference = max(difference, on_files)
    return path, signatures, difference


def _write_file(config: ExportConfig, frozen: FrozenGraph, reference: Reference) -> _Written:
    for info in frozen.inputs.values():
        if info.shape is None:
            raise ToolError(
                f"{info.name} may have any shape, and {config.to} has to know how many "
                f"dimensions there are: say it, as in --shape={info.name.removesuffix(':0')}=?"
            )
    is_onnx = config.to == ONNX
    with config.limit.over(_CONVERSION):
        content = as_onnx(frozen, config.opset) if is_onnx else as_tflite(frozen)
    with config.limit.over(RUN):
        found = (run_onnx if is_onnx else run_tflite)(content, frozen, reference.feeds)
    runtime = "onnxruntime" if is_onnx else "TFLite's interpreter"
    difference = largest_difference(reference, found, runtime, config.tolerance)
    write_whole(config.output, content)
    return config.output, {SIGNATURE: frozen.inputs}, difference


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
