"""A fine-tuning as a task of the training loop: its images, and the values it begins with."""

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from checkpoints.layout import is_slot
from checkpoints.reader import OBJECT_GRAPH, CheckpointReader
from checkpoints.writer import export_meta_graph
from data import BUILT_IN
from data.batches import ShuffledBatches, TrainingBatches, evaluation_batches
from data.files import UINT8_SCALE
from data.image_data import ImageData
from data.images import IMAGE_SHAPE
from errors import CheckpointError, TrainingError, first_few
from finetuning import DEFAULT_BATCH_SIZE, DEFAULT_STEPS, FinetuneConfig, base
from finetuning.base_plan import BasePlan, plan_base
from metagraph.description import Model
from metagraph.meta import MetaGraphFile, node_of
from metagraph.variables import checkpoint_keys, read_values
from prediction.chosen_model import READING, with_model
from training.config import last_step, log_interval
from training.task import NONE, InitialValues, Task, open_images, predict_with

IMPORT = "importing the model"  # What a time limit is for.
_SHOWN = 5


def _image_shape(plan: BasePlan) -> tuple[int, ...]:
    """What the model takes of each image; sizes that it leaves open are those of 32 x 32 RGB."""
    taken, model = plan.rows.shape, plan.model
    if taken is None:
        return IMAGE_SHAPE
    of_row = model.image_shape if plan.rows.name in model.inputs.values() else None
    if of_row is not None and taken[1:] == (math.prod(of_row),):
        return of_row  # Each row is an image, as the model says.
    if len(taken) == len(IMAGE_SHAPE) + 1:
        return tuple(size or own for size, own in zip(taken[1:], IMAGE_SHAPE, strict=True))
    if None in taken[1:]:
        raise TrainingError(f"{plan.meta.path} takes {plan.rows}: its sizes are not known")
    return tuple(size for size in taken[1:] if size is not None)


def _scale(plan: BasePlan, config: FinetuneConfig) -> float:
    """What uint8 pixels are multiplied by: as asked for, as the model says, or so that 255 is 1."""
    if config.input_scale is not None:
        return config.input_scale
    own = plan.model.input_scale if plan.rows.name in plan.model.inputs.values() else None
    return float(UINT8_SCALE) if own is None else own


def _batch(plan: BasePlan, config: FinetuneConfig) -> int | None:
    """The only number of images that the model takes at once; None where it takes any."""
    if base.free_batch(plan):
        return None
    size = plan.rows.shape[0] if plan.rows.shape else None
    if config.batch_size not in (None, size):
        raise TrainingError(
            f"{plan.meta.path} takes {size} images at once: give --batch_size={size}, not "
            f"{config.batch_size}"
        )
    return size


def restored_values(plan: BasePlan) -> InitialValues:
    """Reads what is restored, and nothing else; logs which of the checkpoint's tensors that leaves.

    CheckpointError where one is missing, or does not fit.
    """
    if not plan.restored:
        return NONE
    prefix = plan.meta.prefix
    try:
        values = read_values(plan.meta, [plan.variables[name] for name in plan.restored])
    except CheckpointError as error:
        raise CheckpointError(f"{error} (--exclude leaves variables new)") from error
    reader = CheckpointReader(prefix)
    places = checkpoint_keys(plan.meta, plan.restored, reader.names)
    keys = {name: place.key for name, place in places.items()}
    if left := reader.shapes.keys() - keys.values() - {OBJECT_GRAPH}:
        slots_last = sorted(left, key=lambda key: (is_slot(key, reader.shapes), key))
        logging.info("not taken from %s: %s", prefix, first_few(slots_last, _SHOWN))
    others = ", ".join(plan.meta.others) or "the graph's initial value"
    where = {name: prefix if key in reader.shapes else others for name, key in keys.items()}
    origins = {n: where[n] if key == n else f"{where[n]} as {key}" for n, key in keys.items()}
    return InitialValues(values, origins)


def make_task(config: FinetuneConfig) -> Task:
    """Opens the model and the images, and builds the graph that the config asks for.

    Raises CheckpointError where the model cannot be opened, imported or built on, DataError where
    the images cannot be used, TrainingError where model, images and flags do not go together.
    """
    limit = config.limit
    plan, initial = with_model(config, functools.partial(_plan, config))
    handed_over = [initial]  # Once, so that the values are freed as soon as they are assigned.
    with limit.over(IMPORT):
        only_size = _batch(plan, config)
    scale = _scale(plan, config)
    data = open_images(config, config.run, _image_shape(plan), np.float32(scale))
    num_images = len(data.train)
    batch_size = only_size or config.batch_size or min(DEFAULT_BATCH_SIZE, num_images)
    order = ShuffledBatches(num_images, batch_size, config.run.seed)
    own = config.run.rows(batch_size)
    examples = TrainingBatches(data.train, order, config.on_bad_image, own=own)
    if config.run.shards > 1:
        _check_parts(plan, only_size)
    with limit.over(IMPORT):
        graph = base.build(plan, config, data, only_size)
    data_set = config.data if config.data in BUILT_IN else None
    return Task(
        model=graph,
        meta_graph=export_meta_graph(graph, data.class_names, scale, data_set),
        batches=examples.of_steps,
        batch_size=batch_size,
        examples="images",
        test_batches=evaluation_batches(data.test, config.on_bad_image, only_size),
        last_step=last_step(
            config.train_steps, config.epochs, DEFAULT_STEPS, num_images, batch_size
        ),
        log_every_steps=log_interval(config.run.log_every_steps, num_images, batch_size),
        identity=_identity(config, plan, data, scale, batch_size),
        write_data=data.write,
        predict_with=predict_with(config.data),
        initial_values=handed_over.pop,
    )


def _check_parts(plan: BasePlan, only_size: int | None) -> None:
    """TrainingError unless a batch can be trained on in parts."""
    if only_size is not None:
        raise TrainingError(
            f"{plan.meta.path} takes {only_size} images at once, and no part of them: train with "
            "--shards=1"
        )
    if plan.updates:
        raise TrainingError(
            f"--shards: {node_of(plan.updates[0])} follows from the whole batch, such as the "
            "moving mean of batch normalisation: switch it off in training, such as with "
            "--train_feed=is_training=false, or train with --shards=1"
        )


def _plan(
    config: FinetuneConfig, meta: MetaGraphFile, model: Model
) -> tuple[BasePlan, InitialValues]:
    """Finds the part of the model that is built on, and reads its values."""
    with config.limit.over(READING):
        plan = plan_base(meta, config, model)
    values = restored_values(plan)
    for setting in plan.settings:
        logging.info("in training, %s", setting)
    return plan, values


def _identity(
    config: FinetuneConfig, plan: BasePlan, data: ImageData, scale: float, batch_size: int
) -> Mapping[str, Any]:
    """What the run's numbers follow from, beside the values of the base."""
    given = {
        "train_scopes": list(config.train_scopes),
        "exclude": config.exclude,
        "train_feed": list(config.train_feed),
        "finetune_learning_rate": config.rate_of_scopes if config.train_scopes else None,
        "input_offset": config.input_offset,
        "ignore_exif": config.ignore_exif,
    }
    return {
        "model": "fine-tuned",
        "base": hashlib.sha256(plan.graph_def.SerializeToString(deterministic=True)).hexdigest(),
        "tensor": plan.tensor,
        "head": config.head,
        **data.identity(),
        "input_scale": scale,
        "batch_size": batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.run.seed,
        **{name: value for name, value in given.items() if value},
        **config.added(),
    }
