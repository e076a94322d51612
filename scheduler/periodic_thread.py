"""A thread that repeats a function at an interval of the monotonic clock, which never jumps."""

import logging
import threading
import time
from collections.abc import Callable

from models.platform.errors import Unavailable

log = logging.getLogger(__name__)


class PeriodicThread:
    """Calls `function` at once and then every `interval` seconds until it is stopped. Exceptions are logged.

    last_success  when the last call without an exception returned, in seconds since 1970
    """

    def __init__(self, name: str, interval: float, function: Callable[[], object]) -> None:
        self.interval = interval
        self._function = function
        self._stopped = threading.Event()
        self.last_success: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self._thread.name

    @property
    def thread(self) -> threading.Thread:
        """The thread itself."""
        return self._thread

    def start(self) -> "PeriodicThread":
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop after the current call and wait for its end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._function()
                self.last_success = time.time()
            except Unavailable as error:
                log.warning("%s: the database is unavailable: %s", self._thread.name, error)
            except Exception:  # the next call may succeed
                log.exception("%s: unexpected error", self._thread.name)
            self._stopped.wait(self.interval)
