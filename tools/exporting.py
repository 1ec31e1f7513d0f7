"""One export from start to end: what tools.export does once its flags are read.

The model is written in one of the formats, and kept if that format's own runtime computes the same
with it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

from checkpoints.manifest import SIGNATURE
from data import files
from errors import first_few
from metagraph.meta import MetaGraphFile, format_shape
from metagraph.model import Model, checkpoint_of
from metagraph.safety import RUN
from prediction.chosen_model import with_model
from prediction.output import check_target, write_whole
from tools.command import ONNX, SAVED_MODEL, TFLITE, Record, format_bytes
from tools.converters import as_onnx, as_tflite, check_onnx_installed, run_onnx, run_tflite
from tools.export import ExportConfig
from tools.export_saved_model import (
    BYTES_KEY,
    BYTES_SIGNATURE,
    ImageInput,
    as_lines,
    as_saved_model,
    example_files,
    find_image_input,
    rows_of,
    run_saved_model,
    write_saved_model,
)
from tools.export_source import (
    Source,
    check_close,
    choose_version,
    freeze_source,
    new_version,
    with_shapes,
)

_CONVERSION = "the conversion"


class Written(NamedTuple):
    """What has been written.

    Attributes:
      path: of the file, or of the version's folder.
      difference: the largest from the session.
      described: a meta graph with its signatures.
    """

    path: str
    difference: float
    described: MetaGraphDef


def write_model(source: Source) -> Written:
    """Writes the model in the format that its config says.

    Raises:
      ToolError: it cannot be had in that format, or is not the same there; nothing is left.
      DataError: the file system refuses.
    """
    return _WRITERS[source.config.to](source, source.config)


def _write_saved_model(source: Source, config: ExportConfig) -> Written:
    image = find_image_input(source.inputs, source.model)
    version = choose_version(config.output, config.version)
    with (
        files.refusals_as_data_errors(config.output),
        new_version(config.output, version) as folder,
    ):
        described = _put_saved_model(source, folder, image)
        difference = _check_signature(source, folder)
        if image is not None:
            difference = max(difference, _check_files_signature(source, folder, image))
    return Written(os.path.join(config.output, str(version)), difference, described)


def _put_saved_model(source: Source, folder: str, image: ImageInput | None) -> MetaGraphDef:
    """Makes and writes it; returns a meta graph with its signatures and without its weights."""
    names = source.model.class_names
    with source.config.limit.over(_CONVERSION):
        model = as_saved_model(source.frozen, image, names)
    write_saved_model(model, folder, names)
    described = MetaGraphDef()
    for name, signature in model.meta_graphs[0].signature_def.items():
        described.signature_def[name].CopyFrom(signature)
    return described


def _check_signature(source: Source, folder: str) -> float:
    """Compares `serving_default` with the session."""
    config, frozen = source.config, source.frozen
    values = {key: source.feeds[name] for key, name in frozen.inputs.items()}
    found = run_saved_model(folder, SIGNATURE, values, config.limit)
    by_name = {name: found[key] for key, name in frozen.outputs.items()}
    return check_close(source.reference, by_name, config.tolerance, "the SavedModel")


def _check_files_signature(source: Source, folder: str, image: ImageInput) -> float:
    """Compares what the SavedModel computes from image files with the session on their pixels."""
    config, frozen = source.config, source.frozen
    contents = example_files(image, len(source.feeds[image.info.name]))
    reference = source.on({**source.feeds, image.info.name: rows_of(contents, image)})
    values = {key: source.feeds[name] for key, name in frozen.inputs.items() if key != image.key}
    values[BYTES_KEY] = np.array(contents, object)
    found = run_saved_model(folder, BYTES_SIGNATURE, values, config.limit)
    by_name = {name: found[key] for key, name in frozen.outputs.items()}
    return check_close(reference, by_name, config.tolerance, "the SavedModel on image files")


def _write_onnx(source: Source, config: ExportConfig) -> Written:
    source.check_ranks("ONNX")
    with config.limit.over(_CONVERSION):
        content = as_onnx(source.frozen, _metadata(source), config.opset)
    with config.limit.over(RUN):
        found = run_onnx(content, source.feeds, [*source.reference.results])
    difference = check_close(source.reference, found, config.tolerance, "onnxruntime")
    write_whole(config.output, content)
    return Written(config.output, difference, source.frozen.meta)


def _metadata(source: Source) -> dict[str, Any]:
    """What the model says of itself, without what it does not say."""
    model = source.model
    found = {
        "class_names": model.class_names,
        "input_scale": model.input_scale,
        "image_shape": model.image_shape,
        "trained_on": model.trained_on,
        "inputs": dict(source.frozen.inputs),
        "outputs": dict(source.frozen.outputs),
    }
    return {key: value for key, value in found.items() if value}


def _write_tflite(source: Source, config: ExportConfig) -> Written:
    source.check_ranks("TFLite")
    frozen = source.frozen
    with config.limit.over(_CONVERSION):
        content = as_tflite(frozen, source.model.class_names)
    values = {key: source.feeds[name] for key, name in frozen.inputs.items()}
    with config.limit.over(RUN):
        found = run_tflite(content, values)
    by_name = {name: found[key] for key, name in frozen.outputs.items()}
    difference = check_close(source.reference, by_name, config.tolerance, "TFLite's interpreter")
    write_whole(config.output, content)
    return Written(config.output, difference, frozen.meta)


_WRITERS: Mapping[str, Callable[[Source, ExportConfig], Written]] = {
    SAVED_MODEL: _write_saved_model,
    ONNX: _write_onnx,
    TFLITE: _write_tflite,
}


# One export from start to end: what tools/export.py does once its flags are read.

_MAX_NAMED = 10


def export(config: ExportConfig) -> Record:
    """Freezes, converts, compares and writes.

    Returns:
      JSON values: `format`; `path`, of the file or of the version's folder; `bytes`, of all files;
      `graph`, the file that was read; `checkpoint`, the prefix of its variables, null where it has
      none; `signatures`, name -> `inputs` and `outputs`, each key -> `name`, `dtype` and `shape`
      (null where unknown, null sizes too); `class_names`; `switched_off`, the tensors of training
      that are constants now -> their values; `random`, the outputs that are another at each run and
      were not compared; `largest_difference` of the others from the session.

    Raises:
      CheckpointError, DataError, PredictionError, ToolError: one line for the user; nothing is
        left of what was begun.
    """
    if config.to == ONNX:
        check_onnx_installed()
    return with_model(config, lambda meta, model: _export(config, meta, model))


def _export(config: ExportConfig, meta: MetaGraphFile, model: Model) -> Record:
    _check_target(config, meta)
    source = freeze_source(config, with_shapes(meta, config.shapes, model))
    return _record(config, meta, source, write_model(source))


def _check_target(config: ExportConfig, meta: MetaGraphFile) -> None:
    """Sees, before a long run, that the result could be written."""
    if config.to == SAVED_MODEL:
        choose_version(config.output, config.version)
    else:
        read = [meta.path, *config.asset.values()]
        check_target(config.output, read, overwrite=config.overwrite)


def _record(
    config: ExportConfig, meta: MetaGraphFile, source: Source, written: Written
) -> dict[str, Any]:
    return {
        "format": config.to,
        "path": written.path,
        "bytes": _size(written.path),
        "graph": meta.path,
        "checkpoint": checkpoint_of(meta),
        "signatures": {
            name: _signature(proto)
            for name, proto in sorted(written.described.signature_def.items())
        },
        "class_names": list(source.model.class_names),
        "switched_off": dict(source.frozen.plan.off),
        "random": list(source.reference.random),
        "largest_difference": written.difference,
    }


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not files.is_folder(path):
        return files.size(path)
    walked = tf.io.gfile.walk(path)
    return sum(
        files.size(files.join(folder, name)) for folder, _, names in walked for name in names
    )


def _signature(proto: SignatureDef) -> dict[str, Any]:
    return {"inputs": _tensors(proto.inputs), "outputs": _tensors(proto.outputs)}


def _tensors(infos: Mapping[str, TensorInfoProto]) -> dict[str, Any]:
    """By key, sorted, as protobuf maps have no order of their own."""
    return {
        key: {
            "name": info.name,
            "dtype": tf.as_dtype(info.dtype).name,
            "shape": _shape(info.tensor_shape),
        }
        for key, info in sorted(infos.items())
    }


def _shape(shape: TensorShapeProto) -> list[int | None] | None:
    if shape.unknown_rank:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


def as_text(record: Record) -> str:
    """Lines for people."""
    lines = [f"{record['path']}  {record['format']}, {format_bytes(record['bytes'])}"]
    for name, signature in record["signatures"].items():
        lines.append(f"signature {name}")
        for kind in ("inputs", "outputs"):
            lines += [f"  {kind[:-1]} {_tensor_line(*item)}" for item in signature[kind].items()]
    names = as_lines(record["class_names"])
    lines += [f"class names {first_few(names, _MAX_NAMED)}"] if names else []
    lines += [f"switched off {name} = {value}" for name, value in record["switched_off"].items()]
    lines += [f"random, and so not compared: {name}" for name in record["random"]]
    lines.append(f"largest difference from the session {record['largest_difference']:.2g}")
    return "\n".join(lines)


def _tensor_line(key: str, tensor: Record) -> str:
    return f"{key} = {tensor['name']}  {tensor['dtype']} {format_shape(tensor['shape'])}"
