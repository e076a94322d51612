"""What a process may use of the machine, which in a container is less than the machine has."""

import os
from pathlib import Path

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def usable_cores(wanted: int, quota: Path = CGROUP_CPU) -> int:
    """`wanted`, but no more than the process may run on or its container is granted, and at least 1.

    More threads than that would wait for each other at each layer of the model.
    """
    return max(1, min(wanted, len(os.sched_getaffinity(0)), _granted_cores(quota) or wanted))


def usable_memory(limit: Path = CGROUP_MEMORY) -> int:
    """Bytes of memory: the machine's, or the container's limit where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(limit.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or `max`
        return machine


def _granted_cores(quota: Path) -> int | None:
    """Whole cores from a cgroup's `QUOTA PERIOD`, both in microseconds. None where it grants all, or isn't there."""
    try:
        granted, period = quota.read_text().split()
        return max(1, int(granted) // int(period))
    except (OSError, ValueError):
        return None
