"""The images of a fine-tuning, in the shape and on the scale that the model takes."""

import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from absl import logging

from checkpoints.loading.time_limit import TimeLimit
from data.bad_rows import BadSoFar
from data.image_data import ImageData, ReadOptions, open_image_data
from data.image_file import IMAGE_SHAPE
from data.ramp import RAMP_FILE
from data.row_batches import row_batches
from data.source import UINT8_SCALE, Array, Source
from finetuning.base import free_batch
from finetuning.base_plan import BasePlan
from finetuning.config import FinetuneConfig
from training.errors import TrainingError

_TEST_BATCH_SIZE = 250  # images at once
IMPORT = "importing the model"  # What a time limit is for.


class Images(NamedTuple):
    """What is trained on.

    Attributes:
      data: the images.
      scale: what uint8 pixels have been multiplied by.
      shape: [N, ...] of a batch as the model takes it; N None for any number.
    """

    data: ImageData
    scale: float
    shape: tuple[int | None, ...]


def open_images(plan: BasePlan, config: FinetuneConfig, limit: TimeLimit) -> Images:
    """Opens the images that the config names; `limit` is that of the model's import.

    Raises:
      DataError: they cannot be used.
      TrainingError: the model does not take such images, or not such batches.
    """
    scale = _scale(plan, config)
    with limit.over(IMPORT):
        batch = _batch(plan, config)
    data = open_image_data(
        config.data,
        ramp_path=os.path.join(config.run.ckpt_dir, RAMP_FILE),
        validation_fraction=config.validation_fraction,
        seed=config.run.seed,
        options=ReadOptions(
            config.classes,
            config.data_memory_mb,
            config.on_bad_image,
            image_shape=_image_shape(plan),
            scale=np.float32(scale),
            ignore_exif=config.ignore_exif,
        ),
    )
    return Images(data, scale, (batch, *data.train.specs[0].shape))


def _image_shape(plan: BasePlan) -> tuple[int, ...]:
    """What the model takes of each image; sizes that it leaves open are those of 32 x 32 RGB.

    The rows of some models are images, as they say themselves.
    """
    taken, model = plan.rows.shape, plan.model
    of_row = model.image_shape if plan.rows.name in model.inputs.values() else None
    if of_row is not None and taken is not None and taken[1:] == (math.prod(of_row),):
        return of_row
    if taken is None:
        return IMAGE_SHAPE
    if len(taken) == len(IMAGE_SHAPE) + 1:
        return tuple(size or own for size, own in zip(taken[1:], IMAGE_SHAPE, strict=True))
    if None in taken[1:]:
        raise TrainingError(f"{plan.meta.path} takes {plan.rows}: its sizes are not known")
    return tuple(size for size in taken[1:] if size is not None)


def _scale(plan: BasePlan, config: FinetuneConfig) -> float:
    """What uint8 pixels are multiplied by: as asked for, as the model says, or so that 255 is 1."""
    if config.input_scale is not None:
        return config.input_scale
    model = plan.model
    if model.input_scale is not None and plan.rows.name in model.inputs.values():
        return model.input_scale
    return float(UINT8_SCALE)


def _batch(plan: BasePlan, config: FinetuneConfig) -> int | None:
    """The only number of images that the model takes at once; None where it takes any."""
    if free_batch(plan):
        return None
    size = plan.rows.shape[0] if plan.rows.shape else None
    if config.batch_size not in (None, size):
        raise TrainingError(
            f"{plan.meta.path} takes {size} images at once: give --batch_size={size}, not "
            f"{config.batch_size}"
        )
    return size


def test_batches(
    test: Source | None, size: int | None, on_bad: str
) -> Callable[[], Iterator[tuple[Array, ...]]] | None:
    """The batches of the test split; None where there is none.

    Of a model that takes `size` images at once and no others, the rest of them is left out.
    """
    if test is None:
        return None
    bad = BadSoFar(on_bad)
    if size is None:
        return lambda: row_batches(test, _TEST_BATCH_SIZE, bad, test.workers)
    rest = len(test) % size
    if rest:
        logging.warning(
            "%d of the %d test images are left out: the model takes %d at once",
            rest,
            len(test),
            size,
        )
    if rest == len(test):
        return None
    return lambda: (b for b in row_batches(test, size, bad, test.workers) if len(b[0]) == size)
