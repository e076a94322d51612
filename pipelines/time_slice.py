"""Limit how long one attempt works on a long job, and yield its thread to the jobs of other accounts."""

import time
from collections.abc import Callable

from models.jobs.attempt_context import Attempt
from models.jobs.windows import others_wait
from models.platform.database import Connection, Database
from models.platform.errors import Released

#: Seconds that one attempt works before the job is released.
SECONDS = 600.0

#: Seconds that one attempt works at least before it yields to others: a claim and a release take 20 ms.
SHARE = 2.0

#: Seconds between two looks for jobs that wait.
INTERVAL = 1.0


class TimeSlice:
    """The time that one attempt may work before it releases its job; the next attempt continues from its progress.

    A long job thus never holds a message for longer than the broker waits for an acknowledgement, and never delays the
    jobs of other accounts for longer than SHARE and one of its steps: the released job is published behind theirs.
    """

    def __init__(self, attempt: Attempt, seconds: float = SECONDS, share: float = SHARE) -> None:
        self._attempt = attempt
        self._end = time.monotonic() + seconds
        self._next_look = time.monotonic() + share

    def check(self) -> None:
        """Raise the reason to stop, or Released after the time slice. Call it where the progress is stored."""
        self._attempt.check()
        now = time.monotonic()
        if now > self._end:
            raise Released("time slice used up; another attempt continues the job")
        if now > self._next_look:
            self._next_look = now + INTERVAL
            self._yield_to_others()

    def repeat(self, database: Database, change: Callable[[Connection, int], int], batch: int) -> None:
        """Call a function that changes at most `batch` rows, a transaction each, until it changes none."""
        changed = batch
        while changed:
            self.check()
            with database.transaction() as connection:
                changed = change(connection, batch)

    def _yield_to_others(self) -> None:
        with self._attempt.database.connection() as connection:
            if others_wait(connection, self._attempt.job):
                raise Released("jobs of others wait for this thread; another attempt continues the job")
