"""One export from start to end: what tools/export.py does once its flags are read."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

from checkpoints.errors import first_few
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.tensor_info import format_shape
from data import files
from prediction.checkpoint_state import checkpoint_of
from prediction.chosen_model import with_model
from prediction.model import Model
from tools.common.output import Record, format_bytes
from tools.common.target_file import check_target
from tools.exporting.config import ExportConfig
from tools.exporting.defaults import ONNX, SAVED_MODEL
from tools.exporting.labels import as_lines
from tools.exporting.onnx_model import check_onnx_installed
from tools.exporting.shapes import with_shapes
from tools.exporting.source import Source, freeze_source
from tools.exporting.targets import Written, write_model
from tools.exporting.version_folder import choose_version

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
