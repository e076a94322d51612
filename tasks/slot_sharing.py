"""Share an engine's slots: batch work yields its slot to turns, an account with all slots yields one to others, and
turns yield theirs to those of the tier `priority`, which have threads for half of the slots."""

import logging
import threading
import time
from collections.abc import Callable

from models.jobs.attempt_context import Attempt, Outcome
from models.jobs.jobs import lane_of
from models.jobs.usage import CLASS_ARGUMENT
from models.jobs.windows import others_wait
from models.platform.database import Database
from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

#: Seconds between two looks of a waiting batch attempt at whether it should stop.
POLL_INTERVAL = 0.5

#: Seconds between two checks whether one lane has all slots, and for which it must have had them before one of its
#: turns yields: the next attempt has to read the prompt again.
CHECK_INTERVAL = 0.5
SHORTEST_SLICE = 2.0

Run = Callable[[Attempt], Outcome]


class SlotSharing:
    """Counts the attempts that use the slots of one engine.

    Interactive attempts never wait here. Where those of one lane have all slots while another lane waits, the one that
    began last stops at its next token, and its job continues later. A batch attempt starts only while a slot stays
    free for the next interactive one, if there are several slots. Where interactive attempts need its slot, the batch
    attempt that began last stops at its next token, and its job continues later.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._batch_slots = max(1, slots - 1)
        self._interactive: dict[Attempt, float] = {}  # with their starts, in their order
        self._batch: list[Attempt] = []  # in the order in which they began
        self._granted: set[Attempt] = set()  # those of the tier `priority` for which another one was stopped
        self._changed = threading.Condition()

    def interactive(self, run: Run) -> Run:
        """Wrap the pipeline of an interactive kind of job."""

        def run_first(attempt: Attempt) -> Outcome:
            with self._changed:
                self._interactive[attempt] = time.monotonic()
                self._stop_surplus_batch()
            try:
                return run(attempt)
            finally:
                with self._changed:
                    del self._interactive[attempt]
                    self._granted.discard(attempt)
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
        return len(self._batch) < self._batch_slots and len(self._interactive) + len(self._batch) < self._slots

    def _stop_surplus_batch(self) -> None:
        surplus = len(self._interactive) + len(self._batch) - self._slots
        for attempt in self._batch[::-1][: max(0, surplus)]:
            attempt.stop("yielded")

    def watch_lanes(self, database: Database) -> None:
        """Start a thread that has a lane with all slots yield one to waiting lanes. The engine must continue texts."""
        threading.Thread(target=self._watch, args=(database,), name="slot-sharing", daemon=True).start()

    def yield_to_priority(self) -> None:
        """Stop the turn that began last for each turn of the tier `priority` that waits for a slot, once.

        An attempt that is still reading its prompt does not yield, and an only slot stays with each attempt for a
        while, so that each one gets on.
        """
        with self._changed:
            began = time.monotonic() - (SHORTEST_SLICE if self._slots == 1 else 0)
            for attempt in list(self._interactive):
                if has_priority(attempt) and not attempt.journal.tokens and attempt not in self._granted:
                    self._grant_slot(attempt, began)

    def _grant_slot(self, attempt: Attempt, began: float) -> None:
        """Stop a turn for an attempt, if those that use the slots or wait for them are more than the slots."""
        using = [each for each in self._interactive if not each.should_stop()]
        standard = [each for each in using if not has_priority(each) and each.journal.tokens]
        due = [each for each in standard if self._interactive[each] <= began]
        if len(using) > self._slots and due:
            self._granted.add(attempt)
            due[-1].stop("yielded")

    def yield_to_others(self, database: Database) -> None:
        """Stop a turn of a lane that has all slots while another lane waits. Raises Unavailable."""
        attempt = self._last_of_full_lane()
        if attempt is None:
            return
        with database.connection() as connection:
            waiting = others_wait(connection, attempt.job)
        if waiting:
            attempt.stop("yielded")

    def _last_of_full_lane(self) -> Attempt | None:
        """Return the attempt that began last of those with tokens, if one lane has had all slots for long enough.

        An attempt that is still reading its prompt would read it again, perhaps without end.
        """
        with self._changed:
            attempts = list(self._interactive)
            newest = max(self._interactive.values(), default=0.0)
        if self._slots == 1 or len(attempts) < self._slots or len({lane_of(attempt.job) for attempt in attempts}) > 1:
            return None
        if time.monotonic() - newest < SHORTEST_SLICE:
            return None
        return next((attempt for attempt in reversed(attempts) if attempt.journal.tokens), None)

    def _watch(self, database: Database) -> None:
        while True:
            time.sleep(CHECK_INTERVAL)
            try:
                self.yield_to_others(database)
                self.yield_to_priority()
            except Unavailable:
                continue
            except Exception:
                log.exception("Cannot check whether other accounts wait for a slot; retrying")


def has_priority(attempt: Attempt) -> bool:
    """Return whether an attempt is of the tier `priority`."""
    return attempt.job.arguments.get(CLASS_ARGUMENT) == "priority"
