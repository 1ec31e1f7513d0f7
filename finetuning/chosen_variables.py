"""Which variables of a base are trained, and which are restored."""

import re
from collections.abc import Mapping

import tensorflow as tf

from checkpoints.errors import CheckpointError, first_few
from checkpoints.loading.checkpoint_reader import CheckpointReader
from checkpoints.loading.meta_graph_file import MetaGraphFile
from checkpoints.loading.sub_graph import SubGraph
from checkpoints.loading.tensor_info import format_shape
from checkpoints.loading.variable_values import (
    VARIABLE_OPS,
    Variable,
    trainable_names,
    variable_of,
)
from training.errors import TrainingError

_MAX_NAMED = 10


def variables_in(meta: MetaGraphFile, needed: SubGraph) -> dict[str, Variable]:
    """The variables of a part.

    Raises:
      TrainingError: the shape of one is not known, or it holds strings.
    """
    found = {}
    for name, node in meta.nodes.items():
        if name in needed.names and node.op in VARIABLE_OPS:
            variable = variable_of(meta, node)
            if node.op == "Variable" and variable.shape.rank is None:
                # It cannot tell a scalar from a shape that is not known: the values will tell.
                variable = variable._replace(shape=tf.TensorShape([]))
            if not variable.shape.is_fully_defined() or variable.dtype == tf.string:
                raise TrainingError(
                    f"{name} of {meta.path} cannot be fine-tuned with: it is a variable of "
                    f"{variable.dtype.name} {format_shape(variable.shape)}"
                )
            found[name] = variable
    return found


def trainable_in(meta: MetaGraphFile, forward: SubGraph) -> list[str]:
    """The variables of a part that could be trained; where the file tells of none, all numbers."""
    told = trainable_names(meta)
    return [
        name
        for name, variable in variables_in(meta, forward).items()
        if variable.dtype.is_floating and (name in told or not told)
    ]


def in_scopes(trainable: list[str], scopes: tuple[str, ...], meta: MetaGraphFile) -> list[str]:
    """Those of the variables that are in the scopes.

    Raises:
      TrainingError: in one of the scopes there is none.
    """
    for scope in scopes:
        if not any(is_in(name, (scope,)) for name in trainable):
            known = list(dict.fromkeys(name.rpartition("/")[0] or name for name in trainable))
            raise TrainingError(
                f"--train_scopes={scope}: the part of {meta.path} that is taken has no variable to "
                f"train there; it has {first_few(known, _MAX_NAMED) if known else 'none at all'}"
            )
    return [name for name in trainable if is_in(name, scopes)]


def is_in(name: str, scopes: tuple[str, ...]) -> bool:
    """Whether a variable is in one of the scopes, or is named by one."""
    return any(name == scope or name.startswith(f"{scope.rstrip('/')}/") for scope in scopes)


def excluded_by(
    variables: Mapping[str, Variable],
    initial: Mapping[str, str],
    pattern: str | None,
    meta: MetaGraphFile,
) -> set[str]:
    """The variables that are not restored.

    Raises:
      TrainingError: the pattern matches none, nor anything else in the checkpoint.
      CheckpointError: the file does not say how one of them begins, or the checkpoint is damaged.
    """
    if pattern is None:
        return set()
    found = {name for name in variables if re.fullmatch(pattern, name)}
    held = CheckpointReader(meta.prefix).shapes if variables and not found else ()
    if not found and not any(re.fullmatch(pattern, key) for key in held):
        raise TrainingError(
            f"--exclude={pattern}: it matches none of the variables that are taken from "
            f"{meta.path}: {first_few(list(variables), _MAX_NAMED)}"
        )
    unknown = sorted(name for name in found if name not in initial)
    if unknown:
        raise CheckpointError(
            f"--exclude={pattern}: {meta.path} has no initial value of "
            f"{first_few(unknown, _MAX_NAMED)} that stands alone"
        )
    return found
