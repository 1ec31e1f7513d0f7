"""The model that is asked for: opened, where a folder stands for a checkpoint in it, and listed."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints import naming
from checkpoints.dtypes import as_dtype
from checkpoints.folder import best_checkpoint, explain_if_gone
from checkpoints.lock import Hold, read_newest
from checkpoints.manifest import verify_checkpoint
from errors import CheckpointError
from file_io import is_folder
from metagraph.description import Model, constant, json_value
from metagraph.meta import MetaGraphFile, node_of, shape_sizes
from metagraph.model import Candidates, find_candidates, read_model
from metagraph.opening import find_model, find_variables, open_model, prefix_of
from metagraph.session import describe_tensors
from metagraph.variables import VARIABLE_OPS
from prediction.output import Record, tensor_record
from prediction.request import AVERAGED, ModelConfig

BEST = "best"
READING = "reading the graph"
_Config = TypeVar("_Config", bound=ModelConfig)
_Result = TypeVar("_Result")


def with_model(config: ModelConfig, work: Callable[[MetaGraphFile, Model], _Result]) -> _Result:
    """Opens the model that `config` names, as `predict` does, and does some work on it."""

    def on_files(chosen: ModelConfig) -> _Result:
        meta = open_graph(chosen)
        return work(meta, describe(chosen, meta))

    return with_chosen(config, on_files)


def with_chosen(config: _Config, work: Callable[[_Config], _Result]) -> _Result:
    """Does some work on the files that `config` stands for.

    A folder as `meta` stands for its newest checkpoint, or for its best one. Where a trainer
    deletes that while it is being read, the one that is by then is read in its place.
    """

    def on_chosen(hold: Hold) -> _Result:
        chosen = _chosen(config)
        for path in (chosen.meta, chosen.checkpoint):
            if path is not None:
                hold(prefix_of(path))
        try:
            return work(chosen)
        except CheckpointError as error:
            if chosen.checkpoint is not None:
                raise explain_if_gone(error, chosen.checkpoint, "--ckpt") from error
            raise explain_if_gone(error, chosen.meta) from error

    return read_newest((config.meta, config.checkpoint, _folder_of_best(config)), on_chosen)


def _folder_of_best(config: ModelConfig) -> str | None:
    """Where the best checkpoint is looked for; None where another is asked for."""
    if config.checkpoint != BEST:
        return None
    return config.meta if is_folder(config.meta) else os.path.dirname(config.meta) or "."


def _chosen(config: _Config) -> _Config:
    """The same with files in place of what stands for a folder's newest or best checkpoint.

    The best has its own graph where no other is named.
    """
    meta, checkpoint, best = config.meta, config.checkpoint, _folder_of_best(config)
    if best is not None:
        try:
            checkpoint = best_checkpoint(best)
        except CheckpointError as error:
            raise CheckpointError(
                f"--ckpt={BEST}: {error}; a checkpoint that is itself named {BEST} is "
                f"--ckpt=./{BEST}"
            ) from error
        if best == meta:
            meta, checkpoint = checkpoint + naming.META_SUFFIX, None
    elif checkpoint is not None and is_folder(checkpoint):
        checkpoint = find_variables(checkpoint)
    if is_folder(meta):
        meta = find_model(meta, checkpoint is None)
    return dataclasses.replace(config, meta=meta, checkpoint=checkpoint)


def open_graph(config: ModelConfig) -> MetaGraphFile:
    """Reads a graph whose files are chosen."""
    with config.limit.over(READING):
        meta = open_model(config.meta, config.max_meta_bytes, config.checkpoint)
    meta = dataclasses.replace(meta, averaged=config.weights == AVERAGED)
    # The graph may come from another checkpoint than its variables.
    verify_checkpoint(meta.path.removesuffix(naming.META_SUFFIX), [naming.META_SUFFIX])
    return meta


def describe(config: ModelConfig, meta: MetaGraphFile) -> Model:
    """Sees that the variables of a graph are whole, and reads what it says of its model."""
    verify_checkpoint(meta.prefix, (naming.DATA_SUFFIX, naming.INDEX_SUFFIX))
    with config.limit.over(READING):
        return read_model(meta, config.signature)


# What a meta graph holds, for --list: its inputs, outputs, variables, signature, collections.

_TEXT_COLLECTIONS = (naming.CLASS_NAMES_COLLECTION, naming.TRAINED_ON_COLLECTION)
_MAX_DEFAULT_VALUES = 8


def listing(meta: MetaGraphFile, model: Model, found: Candidates | None = None) -> Record:
    """The contents, as `docs/json.md` has them.

    `found` is what could be fed and fetched, where it is known.
    """
    outputs = tuple(dict.fromkeys([*model.predict, *model.outputs.values()]))
    found = found or find_candidates(meta, [*model.inputs.values()], outputs)
    inputs = _tensors(meta, found.inputs)
    return {
        "inputs": [record | _default(meta, record["name"]) for record in inputs],
        "pipeline": _tensors(meta, found.pipeline),
        "outputs": _tensors(meta, outputs),
        "candidates": [] if outputs else _tensors(meta, found.outputs),
        "variables": [_variable(node) for node in meta.nodes.values() if node.op in VARIABLE_OPS],
        "signature": model.signature._asdict(),
        "signatures": list(model.signatures),
        "collections": {key: _collection(meta, key) for key in sorted(meta.proto.collection_def)},
    }


def _tensors(meta: MetaGraphFile, names: Sequence[str]) -> list[Record]:
    try:
        return [tensor_record(info) for info in describe_tensors(meta, names)]
    except CheckpointError:
        if len(names) > 1:
            return [record for name in names for record in _tensors(meta, [name])]
        # It stands on an operation that this TensorFlow lacks; the list goes on all the same.
        return [{"name": name, "dtype": None, "shape": None} for name in names]


def _default(meta: MetaGraphFile, name: str) -> Record:
    """The entry `default` of an input that has one of a few values; else nothing."""
    for source in meta.nodes[node_of(name)].input:  # A placeholder with a default has one.
        node = meta.nodes.get(node_of(source))
        if node is None or node.op != "Const":
            continue
        value = node.attr["value"].tensor
        sizes = [dim.size for dim in value.tensor_shape.dim]
        if min(sizes, default=1) >= 0 and math.prod(sizes) <= _MAX_DEFAULT_VALUES:
            try:
                return {"default": json_value(constant(value))}
            except (KeyError, TypeError, ValueError):  # A dtype without values, or too few.
                return {}
    return {}


def _variable(node: NodeDef) -> Record:
    try:
        dtype = as_dtype(node.attr["dtype"].type).name
    except TypeError:  # A number that this TensorFlow has no name for.
        dtype = None
    shape = shape_sizes(node.attr["shape"].shape)
    return {"name": f"{node.name}:0", "dtype": dtype, "shape": shape}


def _collection(meta: MetaGraphFile, key: str) -> list[Any] | int:
    collection = meta.collection(key)
    kind = collection.WhichOneof("kind")
    if kind is None:
        return 0
    values = getattr(collection, kind).value
    if kind == "bytes_list" and key in _TEXT_COLLECTIONS:
        return [value.decode("utf-8", errors="replace") for value in values]
    return list(values) if kind in ("node_list", "int64_list", "float_list") else len(values)
