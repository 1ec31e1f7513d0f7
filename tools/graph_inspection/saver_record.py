"""What a SaverDef says.

Format: `tensorflow/core/protobuf/saver.proto`.
"""

import math
from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf.saver_pb2 import SaverDef

_TENSORS = ("filename_tensor_name", "save_tensor_name", "restore_op_name")


def saver_record(saver: SaverDef) -> dict[str, Any]:
    """A saver as JSON values.

    Keys: `filename_tensor_name`, `save_tensor_name`, `restore_op_name`, `max_to_keep` (0: all),
    `keep_checkpoint_every_n_hours`, `version` (`LEGACY`, which is V1 too, `V1`, `V2`), `sharded`.
    """
    try:
        version = SaverDef.CheckpointFormatVersion.Name(saver.version)
    except ValueError:
        version = str(saver.version)
    hours = saver.keep_checkpoint_every_n_hours
    return {
        **{key: getattr(saver, key) for key in _TENSORS},
        "max_to_keep": saver.max_to_keep,
        "keep_checkpoint_every_n_hours": hours if math.isfinite(hours) else str(hours),
        "version": version,
        "sharded": saver.sharded,
    }


def saver_text(found: Mapping[str, Any]) -> str:
    """One line of what `saver_record` gives."""
    tensors = ", ".join(f"{key.split('_')[0]} {found[key] or '(none)'}" for key in _TENSORS)
    return (
        f"{tensors}; version {found['version']}{', sharded' if found['sharded'] else ''}; keeps "
        f"{found['max_to_keep'] or 'all'} checkpoints, and one every "
        f"{found['keep_checkpoint_every_n_hours']} hours"
    )
