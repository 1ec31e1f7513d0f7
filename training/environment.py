"""What a run's last bits depend on beside its config: kept with each checkpoint."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def environment() -> dict[str, Any]:
    """The TensorFlow version, the kind of machine, and how many processors this process may use.

    TensorFlow splits sums by its number of threads, which by default is that of the processors; and
    it chooses its kernels by the machine.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "tensorflow": tf.version.VERSION,
        "machine": platform.machine(),
        "processors": len(affinity(0)) if affinity else os.cpu_count(),
    }


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """`name was A, is now B` for each entry that differs."""
    return [
        f"{name} was {saved.get(name)!r}, is now {present.get(name)!r}"
        for name in sorted({*saved, *present})
        if saved.get(name) != present.get(name)
    ]
