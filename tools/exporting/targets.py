"""Writes a model in each of the formats, once its own runtime computes the same with it."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from checkpoints.loading.time_limit import RUN
from checkpoints.meta_graph import SIGNATURE
from data import files
from prediction.output_file import write_whole
from tools.exporting.config import ExportConfig
from tools.exporting.defaults import ONNX, SAVED_MODEL, TFLITE
from tools.exporting.image_bytes import ImageInput, find_image_input
from tools.exporting.onnx_model import as_onnx
from tools.exporting.onnx_runtime import run_onnx
from tools.exporting.saved_model import (
    BYTES_KEY,
    BYTES_SIGNATURE,
    as_saved_model,
    write_saved_model,
)
from tools.exporting.saved_model_check import example_files, rows_of, run_saved_model
from tools.exporting.source import Source, check_close
from tools.exporting.tflite_model import as_tflite, run_tflite
from tools.exporting.version_folder import choose_version, new_version

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
