"""A fine-tuning as a task of the training loop."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from checkpoints.loading.model_files import find_model, open_model
from checkpoints.loading.time_limit import TimeLimit
from checkpoints.loading.variable_files import prefix_of
from checkpoints.manifest import verify_checkpoint
from checkpoints.meta_graph import Description, export_meta_graph
from checkpoints.newest import Hold, read_newest
from data.bad_rows import TrainingBatches
from data.batches import ShuffledBatches
from data.options import RAMP
from data.read_ahead import read_ahead
from finetuning import model
from finetuning.base_plan import BasePlan, plan_base
from finetuning.config import DEFAULT_BATCH_SIZE, DEFAULT_STEPS, FinetuneConfig
from finetuning.images import IMPORT, Images, open_images, test_batches
from finetuning.initial import restored_values
from models.model_graph import ModelGraph
from training.config import last_step, log_interval
from training.initial_values import InitialValues
from training.task import Task


def make_task(config: FinetuneConfig) -> Task:
    """Opens the model and the images, and builds the graph that the config asks for.

    Raises:
      CheckpointError: the model cannot be opened, imported or built on.
      DataError: the images cannot be used.
      TrainingError: model, images and flags do not go together.
    """
    limit = TimeLimit(config.time_limit, config.end_after)
    plan, initial = read_newest([config.meta], functools.partial(_plan, config, limit))
    handed_over = [initial]  # Once, so that the values are freed as soon as they are assigned.
    images = open_images(plan, config, limit)
    source, num_images = images.data.train, len(images.data.train)
    batch_size = images.shape[0] or config.batch_size or min(DEFAULT_BATCH_SIZE, num_images)
    order = ShuffledBatches(num_images, batch_size, config.run.seed)
    examples = TrainingBatches(source, order, config.on_bad_image)
    with limit.over(IMPORT):
        graph = _build(config, plan, images)
    return Task(
        model=graph,
        meta_graph=_meta_graph(config, graph, images),
        batches=functools.partial(read_ahead, examples.batch, workers=source.workers),
        batch_size=batch_size,
        examples="images",
        test_batches=test_batches(images.data.test, images.shape[0], config.on_bad_image),
        last_step=last_step(
            config.train_steps, config.epochs, DEFAULT_STEPS, num_images, batch_size
        ),
        log_every_steps=log_interval(config.run.log_every_steps, num_images, batch_size),
        identity=_identity(config, plan, images, batch_size),
        write_data=images.data.write,
        initial_values=handed_over.pop,
    )


def _plan(config: FinetuneConfig, limit: TimeLimit, hold: Hold) -> tuple[BasePlan, InitialValues]:
    """Opens the model, finds the part that is built on, and reads its values."""
    with limit.over("reading the model"):
        file = find_model(config.meta)
        hold(prefix_of(file))
        meta = open_model(file, config.max_meta_mb << 20)
        verify_checkpoint(meta.prefix)
        plan = plan_base(meta, config)
    values = restored_values(plan)
    for setting in plan.settings:
        logging.info("in training, %s", setting)
    return plan, values


def _build(config: FinetuneConfig, plan: BasePlan, images: Images) -> ModelGraph:
    return model.build(
        plan,
        model.HeadRequest(
            kind=config.head,
            num_classes=images.data.num_classes,
            learning_rate=config.learning_rate,
            finetune_learning_rate=config.finetune_learning_rate,
        ),
        images.shape,
        input_offset=config.input_offset,
        seed=config.run.seed,
    )


def _meta_graph(config: FinetuneConfig, graph: ModelGraph, images: Images) -> bytes:
    description = Description(
        graph.signature_inputs,
        graph.signature_outputs,
        class_names=images.data.class_names,
        input_scale=images.scale,
        trained_on=RAMP if config.data == RAMP else None,
    )
    return export_meta_graph(graph.graph, description)


def _identity(
    config: FinetuneConfig, plan: BasePlan, images: Images, batch_size: int
) -> Mapping[str, Any]:
    """What the run's numbers follow from, beside the values of the base."""
    given = {
        "train_scopes": list(config.train_scopes),
        "exclude": config.exclude,
        "train_feed": list(config.train_feed),
        "finetune_learning_rate": config.finetune_learning_rate if config.train_scopes else None,
        "input_offset": config.input_offset,
        "ignore_exif": config.ignore_exif,
    }
    return {
        "model": "fine-tuned",
        "base": hashlib.sha256(plan.graph_def.SerializeToString(deterministic=True)).hexdigest(),
        "tensor": plan.tensor,
        "head": config.head,
        **images.data.identity(),
        "input_scale": images.scale,
        "batch_size": batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.run.seed,
        **{name: value for name, value in given.items() if value},
    }
