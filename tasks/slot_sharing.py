"""Share an engine's slots between interactive and batch work: batch work waits for a slot, and yields it."""

import threading
from collections.abc import Callable

from models.jobs.attempt_context import Attempt, Outcome

#: Seconds between two looks of a waiting batch attempt at whether it should stop.
POLL_INTERVAL = 0.5

Run = Callable[[Attempt], Outcome]


class SlotSharing:
    """Counts the attempts that use the slots of one engine.

    Interactive attempts never wait here. A batch attempt starts only while a slot stays free for the next interactive
    one, if there are several slots. Where interactive attempts need its slot, the batch attempt that began last stops
    at its next token, and its job continues later.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._batch_slots = max(1, slots - 1)
        self._interactive = 0
        self._batch: list[Attempt] = []  # in the order in which they began
        self._changed = threading.Condition()

    def interactive(self, run: Run) -> Run:
        """Wrap the pipeline of an interactive kind of job."""

        def run_first(attempt: Attempt) -> Outcome:
            with self._changed:
                self._interactive += 1
                self._stop_surplus_batch()
            try:
                return run(attempt)
            finally:
                with self._changed:
                    self._interactive -= 1
                    self._changed.notify_all()

        return run_first

    def batch(self, run: Run) -> Run:
        """Wrap the pipeline of a batch kind of job."""

        def run_when_free(attempt: Attempt) -> Outcome:
            self._wait_for_slot(attempt)
            try:
                return run(attempt)
            finally:
                with self._changed:
                    self._batch.remove(attempt)
                    self._changed.notify_all()

        return run_when_free

    def _wait_for_slot(self, attempt: Attempt) -> None:
        with self._changed:
            while not self._has_batch_slot():
                attempt.check()
                self._changed.wait(POLL_INTERVAL)
            self._batch.append(attempt)

    def _has_batch_slot(self) -> bool:
        return len(self._batch) < self._batch_slots and self._interactive + len(self._batch) < self._slots

    def _stop_surplus_batch(self) -> None:
        surplus = self._interactive + len(self._batch) - self._slots
        for attempt in self._batch[::-1][: max(0, surplus)]:
            attempt.stop("yielded")
