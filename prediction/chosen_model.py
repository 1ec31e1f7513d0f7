"""The model that is asked for: opened, where a folder stands for a checkpoint in it, and listed.

Here is also what a prediction asks of a graph of TensorFlow: `prediction/onnx_file.py` answers the
same.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from absl import logging
from tensorflow.core.framework.node_def_pb2 import NodeDef

from checkpoints import layout
from checkpoints.bundle import as_dtype
from checkpoints.folder import best_checkpoint, explain_if_gone, find_variables, runs_by_age
from checkpoints.layout import prefix_of, verify_checkpoint
from checkpoints.lock import Hold, read_newest
from checkpoints.reader import CheckpointReader
from errors import CheckpointError, DamagedError
from file_io import is_folder, names_in
from metagraph.description import Model, TensorInfo, constant, json_value
from metagraph.graph import attribute_of, sub_graph
from metagraph.meta import MetaGraphFile, node_of, shape_sizes
from metagraph.model import (
    Candidates,
    checkpoint_of,
    described,
    feedable,
    fetchable,
    find_candidates,
    handed_out,
    missing_values,
    read_model,
    state_text,
    with_kept_averages,
    with_shapes,
)
from metagraph.opening import find_model, open_model
from metagraph.session import InferenceGraph, describe_tensors, load_inference_graph
from metagraph.variables import VARIABLE_OPS
from prediction.output import Record, tensor_record
from prediction.request import AVERAGED, ModelConfig, PredictConfig, assets_by_name

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
        for path in (chosen.meta, *chosen.checkpoint):
            hold(prefix_of(path))
        file = (*chosen.checkpoint, chosen.meta)[0]
        flag = "--ckpt" if chosen.checkpoint else "--meta"
        try:
            return work(chosen)
        except CheckpointError as error:
            told, asked = error, (*config.checkpoint, config.meta)[0]
            if isinstance(error, DamagedError) and is_folder(asked):
                told = _with_next_good(error, asked, file, flag)
            raise explain_if_gone(told, file, flag) from error

    return read_newest((config.meta, *config.checkpoint, _folder_of_best(config)), on_chosen)


def _with_next_good(error: CheckpointError, asked: str, file: str, flag: str) -> CheckpointError:
    """The error, with the next good checkpoint of a folder that was asked for."""
    bases = [prefix_of(name) for name in names_in(asked) if name.endswith(layout.INDEX_SUFFIX)]
    older = [name for _, run in runs_by_age(asked, bases) for name in run]
    chosen = os.path.basename(prefix_of(file))
    for name in reversed(older[: older.index(chosen)] if chosen in older else []):
        prefix = os.path.join(asked, name)
        with suppress(CheckpointError):
            verify_checkpoint(prefix)
            reader = CheckpointReader(prefix)
            for key in reader.shapes:
                reader.read(key)
            return CheckpointError(f"{error}; the next that is good: {flag}={prefix}")
    return error


def _folder_of_best(config: ModelConfig) -> str | None:
    """Where the best checkpoint is looked for; None where another is asked for."""
    if BEST not in config.checkpoint:
        return None
    return config.meta if is_folder(config.meta) else os.path.dirname(config.meta) or "."


def _chosen(config: _Config) -> _Config:
    """The same with files in place of what stands for a folder's newest or best checkpoint.

    The best has its own graph where no other is named.
    """
    meta, checkpoints, best = config.meta, [*config.checkpoint], _folder_of_best(config)
    if best is not None:
        try:
            checkpoints[checkpoints.index(BEST)] = found = best_checkpoint(best)
        except CheckpointError as error:
            raise CheckpointError(
                f"--ckpt={BEST}: {error}; a checkpoint that is itself named {BEST} is "
                f"--ckpt=./{BEST}"
            ) from error
        if best == meta:
            meta = found + layout.META_SUFFIX
    checkpoints = [find_variables(path) if is_folder(path) else path for path in checkpoints]
    if is_folder(meta):
        meta = find_model(meta, not checkpoints)
    return dataclasses.replace(config, meta=meta, checkpoint=checkpoints)


def open_graph(config: ModelConfig) -> MetaGraphFile:
    """Reads a graph whose files are chosen."""
    with config.limit.over(READING):
        meta = open_model(config.meta, config.max_meta_bytes, config.checkpoint, config.tags)
        meta = dataclasses.replace(meta, averaged=config.weights == AVERAGED)
        meta = with_shapes(meta, config.shapes, config.signature)
        meta = with_kept_averages(meta) if config.use_moving_averages else meta
    # The graph may come from another checkpoint than its variables.
    verify_checkpoint(meta.path.removesuffix(layout.META_SUFFIX), [layout.META_SUFFIX])
    return meta


def describe(config: ModelConfig, meta: MetaGraphFile) -> Model:
    """Sees that the variables of a graph are whole, and reads what it says of its model."""
    for prefix in (meta.prefix, *meta.others):
        verify_checkpoint(prefix, (layout.DATA_SUFFIX, layout.INDEX_SUFFIX))
    with config.limit.over(READING):
        return read_model(meta, config.signature)


# What a meta graph holds, for --list: its inputs, outputs, variables, signature, collections.

_TEXT_COLLECTIONS = (layout.CLASS_NAMES_COLLECTION, layout.TRAINED_ON_COLLECTION)
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
    for source in meta.taken[node_of(name)]:  # A placeholder with a default has one.
        node = meta.nodes[node_of(source)]
        value = attribute_of(node, "value").tensor
        size = math.prod(dim.size for dim in value.tensor_shape.dim)
        if node.op == "Const" and size <= _MAX_DEFAULT_VALUES:
            with suppress(KeyError, TypeError, ValueError):  # A dtype without values, or too few.
                return {"default": json_value(constant(value))}
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


# What a prediction asks.


class GraphFile:
    """What a prediction asks of a graph of TensorFlow; an `OnnxFile` answers the same."""

    def __init__(self, meta: MetaGraphFile) -> None:
        self._meta = meta

    @property
    def checkpoint(self) -> str | None:
        """The prefix of its variables; None where it has none."""
        return checkpoint_of(self._meta)

    def model(self, config: PredictConfig) -> Model:
        """What the file says of its model, once its variables are seen to be whole."""
        return describe(config, self._meta)

    def listing(self, config: PredictConfig) -> tuple[Record, list[str], str]:
        """What it holds, which values the outputs need and lack, and the end of the list."""
        with config.limit.over("listing the graph"):
            content = listing(self._meta, read_model(self._meta, config.signature))
        outputs = [record["name"] for record in content["outputs"] or content["candidates"]]
        problems = missing_values(self._meta, outputs)
        return content, problems, state_text(self._meta, problems)

    def describe(self, names: Sequence[str], config: PredictConfig) -> tuple[TensorInfo, ...]:
        """The dtype and shape of tensors, in the time that `config` gives it."""
        with config.limit.over(READING):
            return describe_tensors(self._meta, names)

    def unfed(self, fetches: Sequence[str], fed: Collection[str]) -> tuple[str, ...]:
        """The placeholders that `fetches` need beside what is fed.

        In place of a queue, or an iterator without data, it is what comes out of it.
        """
        handed = handed_out(self._meta, fetches, fed)
        return (*sub_graph(self._meta, fetches, [*fed, *handed]).unfed, *handed)

    def depends(self, name: str, fed: Collection[str]) -> bool:
        """Whether a tensor is another where something else is fed."""
        return name in fed or bool(sub_graph(self._meta, [name], fed).feeds)

    def warn_of_feeds(self, fetches: Sequence[str], fed: Collection[str]) -> None:
        """Warns of what is fed in vain, and of what gives data that the graph has of its own."""
        needed = sub_graph(self._meta, fetches, fed)
        for name in fed:
            if name not in needed.feeds.union(fetches):
                logging.warning("%s is fed, and none of %s needs it", name, ", ".join(fetches))
        for name in sorted(needed.names):
            if self._meta.nodes[name].op == "OneShotIterator":
                logging.warning(
                    "%s (OneShotIterator) gives data that the graph has of its own, as for its "
                    "training: feed what comes out of it",
                    name,
                )

    def described(self, names: Sequence[str]) -> str:
        """Tensors with their types, for an error line."""
        return described(self._meta, names)

    def feedable(self, model: Model, fetches: Sequence[str]) -> str:
        """What could be fed, as the end of an error line."""
        return feedable(self._meta, model, fetches)

    def fetchable(self, model: Model) -> str:
        """What could be fetched, as the end of an error line."""
        return fetchable(self._meta, model)

    def load(
        self, fetches: Sequence[str], feeds: Sequence[str], config: PredictConfig
    ) -> InferenceGraph:
        """The graph, ready to run; see `metagraph.session.load_inference_graph`."""
        return load_inference_graph(
            self._meta,
            fetches,
            feeds,
            trust_graph=config.trust_graph,
            assets=assets_by_name(config.asset),
            time_limit=config.limit,
            side_by_side=config.threads == 1,
        )
