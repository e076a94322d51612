"""The CPU and memory that a process may use, which in a container are less than the machine has."""

import os
import time
from pathlib import Path

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
CPU_TIMES = Path("/proc/stat")

#: Ticks per second in CPU_TIMES.
TICKS = os.sysconf("SC_CLK_TCK")

#: Seconds of CPU time, all cores together, over which a share is measured: /proc/stat counts in hundredths.
MIN_INTERVAL = 0.2


def usable_cores(quota: Path = CGROUP_CPU) -> int:
    """Return the number of cores that the process may run on, or its container is granted if that is less; at least 1.

    Two hardware threads of one core count once: llama.cpp gains nothing from the second.
    """
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _cgroup_cores(quota) or len(cores)))


def usable_memory(limit: Path = CGROUP_MEMORY) -> int:
    """Return the bytes of memory: the machine's, or the container's limit where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(limit.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or `max`
        return machine


class CompetingLoad:
    """Measures how busy other processes keep the machine, from Linux's /proc/stat; elsewhere the share is always 0."""

    def __init__(self, times: Path = CPU_TIMES) -> None:
        self._times = times
        self._busy, self._all = self._read()
        self._own, self._process = 0.0, time.process_time()
        self._share = 0.0

    def share(self, own: float) -> float:
        """Return the share of all cores' time that other processes used over the last MIN_INTERVAL.

        `own` is the caller's elapsed seconds since its last call; its CPU time is at most that, for it may have waited.
        """
        busy, total = self._read()
        self._own += own
        if total - self._all >= MIN_INTERVAL:
            process = time.process_time()
            own_cpu = min(self._own, process - self._process)
            self._share = max(0.0, busy - self._busy - own_cpu) / (total - self._all)
            self._busy, self._all, self._own, self._process = busy, total, 0.0, process
        return self._share

    def _read(self) -> tuple[float, float]:
        """Return the seconds since the machine booted: busy, and in total."""
        try:
            words = self._times.read_text().split("\n", 1)[0].split()
            user, nice, system, idle, waiting, *rest = (int(word) / TICKS for word in words[1:9])
        except (OSError, ValueError):
            return 0.0, 0.0
        busy = user + nice + system + sum(rest)
        return busy, busy + idle + waiting


def _siblings(cpu: int) -> str:
    """Return the logical CPUs of this one's core, as Linux lists them; only itself where that is unknown."""
    try:
        return (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _cgroup_cores(quota: Path) -> int | None:
    """Return the whole cores of a cgroup's `QUOTA PERIOD` (in microseconds); None without a quota or cgroup v2."""
    try:
        granted, period = quota.read_text().split()
        return max(1, int(granted) // int(period))
    except (OSError, ValueError):
        return None
