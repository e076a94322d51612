"""What a process may use of the machine, which in a container is less than the machine has."""

import os
from pathlib import Path

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def usable_cores(quota: Path = CGROUP_CPU) -> int:
    """The cores that a process may run on, or that its container is granted where those are fewer; at least 1.

    Two threads of one core count once: llama.cpp gains nothing from the second.
    """
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _granted_cores(quota) or len(cores)))


def usable_memory(limit: Path = CGROUP_MEMORY) -> int:
    """Bytes of memory: the machine's, or the container's limit where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(limit.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or `max`
        return machine


def _siblings(cpu: int) -> str:
    """The logical CPUs that share this one's core, as Linux lists them; only itself where that isn't told."""
    try:
        return (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _granted_cores(quota: Path) -> int | None:
    """Whole cores from a cgroup's `QUOTA PERIOD`, both in microseconds. None where it grants all, or isn't there."""
    try:
        granted, period = quota.read_text().split()
        return max(1, int(granted) // int(period))
    except (OSError, ValueError):
        return None
