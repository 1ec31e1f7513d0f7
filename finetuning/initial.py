"""The values that the base's variables begin with: those of its checkpoint."""

import re
from collections.abc import Collection

from absl import logging

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.loading.saver_mapping import checkpoint_keys
from checkpoints.loading.variable_values import read_values
from finetuning.base_plan import BasePlan
from finetuning.extra_keys import without_place
from training.initial_values import NONE, InitialValues

_SHOWN = 5


def restored_values(plan: BasePlan) -> InitialValues:
    """Reads what is restored, and nothing else; says which of the checkpoint's tensors that leaves.

    What it leaves has to be of a later layer, of an optimizer or the like: see
    `finetuning.extra_keys`.

    Raises:
      CheckpointError: a variable is missing or does not fit, the checkpoint has one in a scope of
        theirs that the graph has no place for, or it is damaged.
    """
    if not plan.restored:
        return NONE
    prefix = plan.meta.prefix
    try:
        values = read_values(plan.meta, [plan.variables[name] for name in plan.restored])
    except CheckpointError as error:
        raise CheckpointError(f"{error} (--exclude leaves variables new)") from error
    held = CheckpointReader(prefix).shapes
    _check_places(plan, held)
    keys = {name: at.key for name, at in checkpoint_keys(plan.meta, plan.restored, held).items()}
    left = sorted({*held} - {*keys.values()})
    if left:
        logging.info("not taken from %s: %s", prefix, first_few(left, _SHOWN))
    origins = {n: prefix if key == n else f"{prefix} as {key}" for n, key in keys.items()}
    return InitialValues(values, origins)


def _check_places(plan: BasePlan, held: Collection[str]) -> None:
    extra = without_place(plan.meta, plan.restored, held)
    if plan.exclude is not None:
        extra = [key for key in extra if not re.fullmatch(plan.exclude, key)]
    if extra:
        raise CheckpointError(
            f"{plan.meta.prefix} holds {first_few(extra, _SHOWN)} beside what is taken, and the "
            f"graph of {plan.meta.path} has no place for that: do they belong together? (--exclude "
            "leaves it out)"
        )
