"""Find processes that live but do not respond: frozen, deadlocked, or busy with one thing for a minute."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

log = logging.getLogger(__name__)

#: Seconds between two checks of a process.
CHECK_INTERVAL = 5.0

#: Consecutive failed checks after which a process counts as unresponsive: at least a minute. They are counted, not
#: timed, so that a machine that was suspended, or a frozen supervisor, is not taken for frozen services.
MAX_FAILURES = 12


@runtime_checkable
class Responsive(Protocol):
    """A service whose process can be asked whether it still works."""

    def responds(self, pid: int) -> bool:
        """Return whether the process works, or whether that cannot be found out. Takes at most a few seconds."""


class LivenessCheck:
    """Checks one process in a thread of its own until it is stopped."""

    def __init__(self, service: Responsive, pid: int) -> None:
        self._responds: Callable[[int], bool] = service.responds
        self._pid = pid
        self._failures = 0
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"liveness of {pid}", daemon=True).start()

    @property
    def failed(self) -> bool:
        """Whether the process has not responded to the last MAX_FAILURES checks."""
        return self._failures >= MAX_FAILURES

    def stop(self) -> None:
        """Stop checking, after the current check."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(CHECK_INTERVAL):
            try:
                self._failures = 0 if self._responds(self._pid) else self._failures + 1
            except Exception:  # a fault of the check is no fault of the process
                log.exception("Cannot check whether process %d responds", self._pid)
