"""The clock process: publishes what no relay has, gives back what died, and fires what is due.

The sweeper may run in any number of processes. So may the firing, which each schedule and time has once by what stands
in the tables; that only the leader looks for what is due saves the others the work.
"""

import logging
import signal
import threading

from models.jobs import outbox, unclaimed_results
from models.platform.database import Database, end_frozen
from models.platform.errors import Unavailable
from models.platform.redis_client import connect
from models.platform.settings import Settings
from models.turns import responses
from pipelines.schedules.firing import fire_due
from pipelines.schedules.starters import STARTERS, StartedWork
from scheduler.leader import Leadership
from scheduler.periodic_thread import PeriodicThread
from scheduler.timetable import TIMETABLE, store_timetable
from tasks.queue import Queue

log = logging.getLogger(__name__)

#: Seconds between two rounds of the sweeper: the most that a lost nudge or an expired lease costs.
SWEEP = 1.0

#: Seconds between two looks at what is due, and at whether somebody leads: the most that a firing is late.
TICK = 0.5


class Clock:
    """What the scheduler's threads do."""

    def __init__(self, settings: Settings, database: Database, queue: Queue, leadership: Leadership) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._leadership = leadership
        self._settled = False

    def sweep(self) -> None:
        """Give back what has no worker any more, forget what nobody has come to read, end who is frozen with locks.

        The queue's relay publishes by its own clock.
        """
        try:
            with self._database.connection() as connection:
                end_frozen(connection)  # first: what comes next may wait for its locks
                moved = outbox.recover(connection)
                forgotten = [*responses.delete_unread(connection), *unclaimed_results.delete_unread(connection)]
        except Unavailable as error:
            log.warning("the sweeper does not reach the database: %s", error)
            return
        for job_id in forgotten:
            self._queue.forget_journal(job_id)
        if moved:
            log.info("gave back %d jobs", moved)
            self._queue.nudge()

    def fire(self) -> None:
        """Fire all that is due, if this process leads. Raises Unavailable.

        The timetable is put in its place whenever the lead is taken: that of whoever leads holds.
        """
        if not self._leadership.held():
            self._settled = False
            return
        if not self._settled:
            store_timetable(self._database)
            self._settled = True
        for fired in fire_due(self._database, self._settings, [*STARTERS, *TIMETABLE]):
            if fired.started is not None:
                self._tell(fired.started)
            if not self._leadership.held():
                return

    def _tell(self, begun: StartedWork) -> None:
        """It is committed: what is lost from here on, the sweeper makes good."""
        self._queue.announce_job(begun.job_id, begun.opening_events)
        if begun.interrupted is not None:
            self._queue.announce_cancellation(begun.interrupted)


def run(settings: Settings) -> None:
    """Run until TERM or INT."""
    database = Database(settings.postgres_dsn, size=4, name="scheduler")
    queue = Queue(settings, database, connect(settings.redis_address), interval=SWEEP)
    leadership = Leadership(settings.postgres_dsn)
    clock = Clock(settings, database, queue, leadership)
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    rounds = [PeriodicThread("sweeper", SWEEP, clock.sweep).start(), PeriodicThread("clock", TICK, clock.fire).start()]
    log.info("ready: sweeping every %g s, %d entries in the timetable", SWEEP, len(TIMETABLE))
    leave.wait()
    for each in rounds:
        each.stop()
    leadership.give_up()
    queue.close()
    database.close()
