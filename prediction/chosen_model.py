"""The model that is asked for, opened: also where a folder stands for a checkpoint of it."""

import dataclasses
import os
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from checkpoints.best import best_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.variable_files import find_variables, prefix_of
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.newest import Hold, read_newest, say_if_gone
from prediction.config import BEST, ModelConfig
from prediction.model import Model, read_model

_Config = TypeVar("_Config", bound=ModelConfig)
_Result = TypeVar("_Result")

READING = "reading the graph"


def with_model(config: ModelConfig, work: Callable[[MetaGraphFile, Model], _Result]) -> _Result:
    """Opens the model that `config` names, as `predict` does, and does some work on it.

    Raises:
      CheckpointError: it cannot be opened; what `work` raises.
    """

    def on_files(chosen: ModelConfig) -> _Result:
        meta = open_graph(chosen)
        return work(meta, describe(chosen, meta))

    return with_chosen(config, on_files)


def with_chosen(config: _Config, work: Callable[[_Config], _Result]) -> _Result:
    """Does some work on the files that `config` stands for.

    A folder as `meta` stands for its newest checkpoint, or for its best one. Where a trainer
    deletes that while it is being read, the one that is by then is read in its place.

    Raises:
      CheckpointError: they cannot be had; what `work` raises.
    """

    def on_chosen(hold: Hold) -> _Result:
        chosen = _chosen(config)
        for path in (chosen.meta, chosen.checkpoint):
            if path is not None:
                hold(prefix_of(path))
        return _with_files(chosen, work)

    return read_newest((config.meta, config.checkpoint, _folder_of_best(config)), on_chosen)


def _folder_of_best(config: ModelConfig) -> str | None:
    """Where the best checkpoint is looked for; None where another is asked for."""
    if config.checkpoint != BEST:
        return None
    is_folder = tf.io.gfile.isdir(config.meta)
    return config.meta if is_folder else os.path.dirname(config.meta) or "."


def _chosen(config: _Config) -> _Config:
    """The same with files in place of what stands for a folder's newest or best checkpoint.

    The best has its own graph where no other is named.
    """
    best = _folder_of_best(config)
    if best == config.meta:
        return dataclasses.replace(config, meta=_best(best) + META_SUFFIX, checkpoint=None)
    meta, checkpoint = config.meta, config.checkpoint
    if best is not None:
        checkpoint = _best(best)
    elif checkpoint is not None and tf.io.gfile.isdir(checkpoint):
        checkpoint = find_variables(checkpoint)
    if tf.io.gfile.isdir(meta):
        meta = find_model(meta, checkpoint is None)
    return dataclasses.replace(config, meta=meta, checkpoint=checkpoint)


def _best(folder: str) -> str:
    """The prefix of a folder's best checkpoint."""
    try:
        return best_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"--ckpt={BEST}: {error}; a checkpoint that is itself named {BEST} is --ckpt=./{BEST}"
        ) from error


def _with_files(config: _Config, work: Callable[[_Config], _Result]) -> _Result:
    """Does the work on one model."""
    try:
        return work(config)
    except CheckpointError as error:
        if config.checkpoint is not None:
            raise say_if_gone(error, config.checkpoint, "--ckpt") from error
        raise say_if_gone(error, config.meta) from error


def open_graph(config: ModelConfig) -> MetaGraphFile:
    """Reads a graph whose files are chosen.

    Raises:
      CheckpointError: it is damaged, too large, or not there.
    """
    with config.limit.over(READING):
        meta = open_model(config.meta, config.max_meta_bytes, config.checkpoint)
    # The graph may come from another checkpoint than its variables.
    verify_checkpoint(meta.path.removesuffix(META_SUFFIX), [META_SUFFIX])
    return meta


def describe(config: ModelConfig, meta: MetaGraphFile) -> Model:
    """Sees that the variables of a graph are whole, and reads what it says of its model.

    Raises:
      CheckpointError: they are damaged, or it has no such signature.
    """
    verify_checkpoint(meta.prefix, (DATA_SUFFIX, INDEX_SUFFIX))
    with config.limit.over(READING):
        return read_model(meta, config.signature)
