"""Rounds: something that a thread does again and again, by the monotonic clock, which never jumps."""

import logging
import threading
from collections.abc import Callable

from models.platform.errors import Unavailable

log = logging.getLogger(__name__)


class PeriodicThread:
    """Calls `work` every `seconds`, from now until it is stopped, whatever becomes of a round."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._seconds = seconds
        self._work = work
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> "PeriodicThread":
        """Begin with the first round at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End after the present round."""
        self._leave.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._leave.is_set():
            try:
                self._work()
            except Unavailable as error:
                log.warning("%s: the database does not answer: %s", self._thread.name, error)
            except Exception:  # the next round may do better
                log.exception("%s: a round failed", self._thread.name)
            self._leave.wait(self._seconds)
