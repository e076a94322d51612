"""The clock process: publishes what no relay has, gives back what died, and starts what is due.

The sweeper may run in any number of processes; the timetable only in the leader's, and a firing's job is keyed by its
minute, so that two leaders for a moment, or a restart at that very minute, fire once.
"""

import logging
import signal
import threading
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from models import outbox, responses, unread
from models.database import Database
from models.errors import Unavailable
from models.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.redis_client import connect
from models.settings import Settings
from scheduler.leader import Leadership
from scheduler.timetable import TIMETABLE
from tasks.queue import Queue

log = logging.getLogger(__name__)

#: Seconds between two rounds of the sweeper: the most that a lost nudge or an expired lease costs.
SWEEP = 1.0

#: Seconds that a firing may be late, after a pause of the process, and still happen.
LATENESS = 3600


class Clock:
    """What the scheduler's threads do."""

    def __init__(self, database: Database, queue: Queue, leadership: Leadership) -> None:
        self._database = database
        self._queue = queue
        self._leadership = leadership

    def sweep(self) -> None:
        """Give back what has no worker any more, forget what nobody has come to read.

        The queue's relay publishes by its own clock.
        """
        try:
            with self._database.connection() as connection:
                moved = outbox.recover(connection)
                forgotten = [*responses.delete_unread(connection), *unread.delete_unread(connection)]
        except Unavailable as error:
            log.warning("the sweeper does not reach the database: %s", error)
            return
        for job_id in forgotten:
            self._queue.forget(job_id)
        if moved:
            log.info("gave back %d jobs", moved)
            self._queue.nudge()

    def fire(self, kind: str) -> None:
        """Enqueue a periodic job, once a minute of firing, if this process leads."""
        if not self._leadership.held():
            return
        minute = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        with self._database.transaction() as connection:
            enqueue(connection, NewJob(kind, PLATFORM_ACCOUNT, unique_key=f"{kind}@{minute}"))
        self._queue.nudge()


def run(settings: Settings) -> None:
    """Run until TERM or INT."""
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    database = Database(settings.postgres_dsn, size=4, name="scheduler")
    queue = Queue(settings, database, connect(settings.redis_address), every=SWEEP)
    leadership = Leadership(settings.postgres_dsn)
    clock = Clock(database, queue, leadership)
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
    scheduler.add_job(clock.sweep, IntervalTrigger(seconds=SWEEP), misfire_grace_time=None)
    scheduler.add_job(leadership.held, IntervalTrigger(seconds=10 * SWEEP), misfire_grace_time=None)
    for kind, trigger in TIMETABLE.items():
        scheduler.add_job(clock.fire, trigger, args=[kind], id=kind, misfire_grace_time=LATENESS)
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    scheduler.start()
    log.info("ready: sweeping every %g s, %d entries in the timetable", SWEEP, len(TIMETABLE))
    leave.wait()
    scheduler.shutdown(wait=True)
    leadership.give_up()
    queue.close()
    database.close()
