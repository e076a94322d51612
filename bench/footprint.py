"""What a process has taken: memory, and CPU time, which says the same on a busy machine as on a quiet one."""

import psutil  # type: ignore[import-untyped]

from ops.process import ChildProcess


class Footprint:
    """One process, looked at from outside."""

    def __init__(self, child: ChildProcess) -> None:
        self._process = psutil.Process(child.pid)

    def kilobytes(self) -> float:
        """Its memory in kB (1,000 bytes), pages that it shares by its share; what the kernel holds for it is not in."""
        return float(self._process.memory_full_info().pss) / 1000

    def seconds(self) -> float:
        """CPU seconds that it has used, of all its threads."""
        times = self._process.cpu_times()
        return float(times.user + times.system)
