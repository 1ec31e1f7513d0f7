"""What a run's last bits depend on beside its config: kept with each checkpoint."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from cli.tensorflow_startup import INTRA_OP_THREADS_VARIABLE


def environment() -> dict[str, Any]:
    """The TensorFlow version, the kind of machine, and among how many threads sums are split.

    TensorFlow chooses its kernels by the machine, and splits an operation's work among as many
    threads as there are processors, or as TF_NUM_INTRAOP_THREADS says.
    """
    return {
        "tensorflow": tf.version.VERSION,
        "machine": platform.machine(),
        "threads": _intra_op_threads(),
    }


def _intra_op_threads() -> int:
    given = os.environ.get(INTRA_OP_THREADS_VARIABLE, "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """`name was A, is now B` for each entry that differs."""

    def value(entries: Mapping[str, Any], name: str) -> str:
        return repr(entries[name]) if name in entries else "not given"

    return [
        f"{name} was {value(saved, name)}, is now {value(present, name)}"
        for name in sorted({*saved, *present})
        if saved.get(name) != present.get(name)
    ]
