"""How much memory there is, and a limit on what a process may take of it."""

import os
from collections.abc import Iterator
from pathlib import Path

# The limit of the container that the process is in, as it sees it: version 2 of Linux's control
# groups, and version 1. Format: the kernel's Documentation/admin-guide/cgroup-v2.rst.
_CONTAINER = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# The stacks of TensorFlow's threads count, used or not: four threads a processor of 8 MiB, twice.
_STACKS_BYTES = 64 << 20


def available_bytes() -> int:
    """Bytes of the machine's memory, or of its container's where that has less."""
    return min(_limits())


def limit_memory(size: int) -> None:
    """Limits what this process may allocate: what goes beyond fails, as if there were no more.

    Files that are mapped, programs and what is only reserved do not count. Where the system has a
    lower limit already, that stays.

    Args:
      size: bytes, beside those that the stacks of threads take.
    """
    import resource  # Not on Windows.

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size + _STACKS_BYTES * (os.cpu_count() or 1)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _limits() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CONTAINER:
        try:
            yield int(path.read_text())
        except (OSError, ValueError):  # No such file; `max`, for no limit.
            continue
