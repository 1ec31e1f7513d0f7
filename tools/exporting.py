"""One export from start to end: what tools.export does once its flags are read.

The model is frozen and written in one of the formats, and kept if that format's own runtime
computes the same with it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo as TensorInfoProto

from checkpoints.naming import SIGNATURE
from data import files
from errors import ToolError, first_few
from metagraph.casting import Array
from metagraph.meta import PLACEHOLDERS, MetaGraphFile, TensorInfo, format_shape, node_of
from metagraph.model import Model, checkpoint_of, read_model
from metagraph.safety import RUN
from metagraph.session import describe_tensors
from prediction.chosen_model import with_model
from prediction.output import check_target, write_whole
from tools.command import Record, format_bytes
from tools.converters import as_onnx, as_tflite, check_onnx_installed, run_onnx, run_tflite
from tools.export import ONNX, SAVED_MODEL, TFLITE, ExportConfig, Shape
from tools.export_images import ImageInput, example_files, find_image_input, rows_of
from tools.export_saved_model import (
    BYTES_KEY,
    BYTES_SIGNATURE,
    as_lines,
    as_saved_model,
    choose_version,
    new_version,
    run_saved_model,
    write_saved_model,
)
from tools.freezing import Reference, freeze_and_compare, largest_difference, run_frozen
from tools.frozen_graph import FrozenGraph

_CONVERSION = "the conversion"
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
    if config.to == SAVED_MODEL:  # Before a long run, it is seen that the result can be written.
        choose_version(config.output, config.version)
    else:
        read = [meta.path, *config.asset.values()]
        check_target(config.output, read, overwrite=config.overwrite)
    if config.shapes:
        meta = with_shapes(meta, config.shapes, model)
    frozen, reference, _ = freeze_and_compare(meta, config)
    source = Source(config, frozen, reference)
    written = _WRITERS[config.to](source, config)
    return {
        "format": config.to,
        "path": written.path,
        "bytes": _size(written.path),
        "graph": meta.path,
        "checkpoint": checkpoint_of(meta),
        "signatures": {
            name: {"inputs": _tensors(proto.inputs), "outputs": _tensors(proto.outputs)}
            for name, proto in sorted(written.described.signature_def.items())
        },
        "class_names": list(source.model.class_names),
        "switched_off": dict(frozen.plan.off),
        "random": list(reference.random),
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


def with_shapes(meta: MetaGraphFile, shapes: Mapping[str, Shape], model: Model) -> MetaGraphFile:
    """The same file with shapes for placeholders, by tensor, or key of its signature.

    Raises:
      CheckpointError: there is no such tensor.
      ToolError: a tensor is no placeholder, or has another shape already.
    """
    proto = MetaGraphDef()
    proto.CopyFrom(meta.proto)
    nodes = {node.name: node for node in proto.graph_def.node}
    by_name = {meta.tensor_name(text, model.feed_keys): shape for text, shape in shapes.items()}
    for info in describe_tensors(meta, [*by_name]):
        shape = by_name[info.name]
        if meta.nodes[node_of(info.name)].op not in PLACEHOLDERS:
            raise ToolError(f"--shape: {info.name} is no placeholder, and has the shape it has")
        if not tf.TensorShape(shape).is_compatible_with(tf.TensorShape(info.shape)):
            raise ToolError(
                f"--shape: {info.name} is {format_shape(info.shape)}, which {format_shape(shape)} "
                "does not go with"
            )
        attributes = nodes[node_of(info.name)].attr
        attributes["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
        attributes.pop("_output_shapes", None)  # The graphs of old producers have it here.
    return MetaGraphFile(meta.path, meta.prefix, proto)


@dataclass(frozen=True)
class Source:
    """A frozen graph, how it is exported, and what the session of its checkpoint computes."""

    config: ExportConfig
    frozen: FrozenGraph
    reference: Reference

    @cached_property
    def model(self) -> Model:
        """What the graph says of itself."""
        return read_model(self.frozen.as_file(self.frozen.plan.meta.path))

    @cached_property
    def inputs(self) -> dict[str, TensorInfo]:
        """By the signature's keys."""
        file = self.frozen.as_file(self.frozen.plan.meta.path)
        names = self.frozen.inputs
        infos = describe_tensors(file, [*names.values()]) if names else ()
        return dict(zip(names, infos, strict=True))

    @property
    def feeds(self) -> dict[str, Array]:
        """The batch, by the full names of the inputs."""
        return {name: self.reference.feeds[name] for name in self.frozen.inputs.values()}

    @property
    def feeds_by_key(self) -> dict[str, Array]:
        """The same by the signature's keys."""
        return {key: self.feeds[name] for key, name in self.frozen.inputs.items()}

    def compare(
        self, found: Mapping[str, Array], runtime: str, reference: Reference | None = None
    ) -> float:
        """Sees that a runtime computes what the session does; returns the largest difference.

        `found` is by the signature's keys; `reference` is the session's for another batch.

        Raises:
          ToolError: there is a larger difference than `--tolerance`, or another shape or dtype.
        """
        tolerance = self.config.tolerance
        by_name = {name: found[key] for key, name in self.frozen.outputs.items()}
        try:
            return largest_difference(reference or self.reference, by_name, runtime, tolerance)
        except ToolError as error:
            raise ToolError(
                f"{error}, more than --tolerance={tolerance:g}; nothing is kept"
            ) from error

    def check_ranks(self, format_name: str) -> None:
        """Raises ToolError where an input may be of any rank, of which other formats make one."""
        for info in self.inputs.values():
            if info.shape is None:
                raise ToolError(
                    f"{info.name} may have any shape, and {format_name} has to know how many "
                    f"dimensions there are: say it, as in --shape={info.name.removesuffix(':0')}=?"
                )


class _Written(NamedTuple):
    """The file, or the version's folder; the largest difference; a graph with its signatures."""

    path: str
    difference: float
    described: MetaGraphDef


def _write_saved_model(source: Source, config: ExportConfig) -> _Written:
    image = find_image_input(source.inputs, source.model)
    version = choose_version(config.output, config.version)
    with (
        files.refusals_as_data_errors(config.output),
        new_version(config.output, version) as folder,
    ):
        described = _put_saved_model(source, folder, image)
        found = run_saved_model(folder, SIGNATURE, source.feeds_by_key, config.limit)
        difference = source.compare(found, "the SavedModel")
        if image is not None:
            difference = max(difference, _check_files_signature(source, folder, image))
    return _Written(os.path.join(config.output, str(version)), difference, described)


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


def _check_files_signature(source: Source, folder: str, image: ImageInput) -> float:
    """Compares what the SavedModel computes from image files with the session on their pixels."""
    contents = example_files(image, len(source.feeds[image.info.name]))
    asked = source.reference._replace(
        feeds={**source.feeds, image.info.name: rows_of(contents, image)}
    )
    reference = asked._replace(results=run_frozen(source.frozen, asked, source.config))
    values = {**source.feeds_by_key, BYTES_KEY: np.array(contents, object)}
    values.pop(image.key)
    found = run_saved_model(folder, BYTES_SIGNATURE, values, source.config.limit)
    return source.compare(found, "the SavedModel on image files", reference)


def _write_onnx(source: Source, config: ExportConfig) -> _Written:
    source.check_ranks("ONNX")
    model, frozen = source.model, source.frozen
    told = {  # What the model says of itself.
        "class_names": model.class_names,
        "input_scale": model.input_scale,
        "image_shape": model.image_shape,
        "trained_on": model.trained_on,
        "inputs": dict(frozen.inputs),
        "outputs": dict(frozen.outputs),
    }
    told = {key: value for key, value in told.items() if value}
    with config.limit.over(_CONVERSION):
        content = as_onnx(frozen, told, config.opset)
    with config.limit.over(RUN):
        results = run_onnx(content, source.feeds, [*source.reference.results])
    found = {key: results[name] for key, name in frozen.outputs.items()}
    difference = source.compare(found, "onnxruntime")
    write_whole(config.output, content)
    return _Written(config.output, difference, frozen.meta)


def _write_tflite(source: Source, config: ExportConfig) -> _Written:
    source.check_ranks("TFLite")
    with config.limit.over(_CONVERSION):
        content = as_tflite(source.frozen, source.model.class_names)
    with config.limit.over(RUN):
        found = run_tflite(content, source.feeds_by_key)
    difference = source.compare(found, "TFLite's interpreter")
    write_whole(config.output, content)
    return _Written(config.output, difference, source.frozen.meta)


# Another format is a writer here, its name and suffix in `tools/export.py`, and what runs it in
# `tools/converters.py`.
_WRITERS: Mapping[str, Callable[[Source, ExportConfig], _Written]] = {
    SAVED_MODEL: _write_saved_model,
    ONNX: _write_onnx,
    TFLITE: _write_tflite,
}


def _tensors(infos: Mapping[str, TensorInfoProto]) -> dict[str, Any]:
    """By key, sorted, as protobuf maps have no order of their own."""
    return {
        key: {
            "name": info.name,
            "dtype": tf.as_dtype(info.dtype).name,
            "shape": None if info.tensor_shape.unknown_rank else _sizes(info.tensor_shape),
        }
        for key, info in sorted(infos.items())
    }


def _sizes(shape: TensorShapeProto) -> list[int | None]:
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


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
