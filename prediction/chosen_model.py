"""The model that is asked for, opened: also where a folder stands for a checkpoint of it."""

import dataclasses
import os
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf
from absl import logging

from checkpoints.best import best_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.model_files import find_model, open_model
from checkpoints.manifest import verify_checkpoint
from checkpoints.naming import DATA_SUFFIX, INDEX_SUFFIX, META_SUFFIX
from checkpoints.newest import say_if_gone
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
    chosen = _chosen(config)
    while True:
        try:
            return _with_files(chosen, work)
        except CheckpointError as error:
            before, chosen = chosen, _chosen(config)
            if chosen == before:
                raise
            logging.warning("%s; reading %s", error, chosen.checkpoint or chosen.meta)


def _chosen(config: _Config) -> _Config:
    """The same with files in place of what stands for a folder's newest or best checkpoint.

    The best has its own graph where no other is named.
    """
    is_folder = tf.io.gfile.isdir(config.meta)
    if config.checkpoint == BEST:
        best = _best(config.meta if is_folder else os.path.dirname(config.meta) or ".")
        if is_folder:
            return dataclasses.replace(config, meta=best + META_SUFFIX, checkpoint=None)
        return dataclasses.replace(config, checkpoint=best)
    if is_folder:
        meta = find_model(config.meta, config.checkpoint is None)
        return dataclasses.replace(config, meta=meta)
    return config


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
