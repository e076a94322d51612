"""Run the scheduler: the sweeper recovers jobs of dead workers, and the clock fires due schedules.

Any number of schedulers may run, and all of them fire: a row lock and the unique (schedule, time) of a firing make each
time fire once (docs/decisions/0021). A killed or frozen scheduler therefore delays nothing but the rows that it holds.
"""

import logging
import signal
import threading
import time

from models.accounts import files
from models.jobs import completion_windows, leases, outbox, unclaimed_results
from models.jobs.jobs import enqueue
from models.platform import process_gauges
from models.platform.code_check import OutdatedWarning
from models.platform.compatibility import finalize_when_due
from models.platform.database import Connection, Database, terminate_stalled_batches
from models.platform.errors import Unavailable
from models.platform.exposition import Exposition
from models.platform.log_levels import LogLevelWatch
from models.platform.migration_files import schema_version
from models.platform.monitoring import MonitoringServer
from models.platform.redis_client import connect
from models.platform.settings import Settings
from models.reports import promises
from models.serving import spill_budget
from models.serving.served_models import ModelDescription
from models.serving.state import ServingCache
from models.serving.stranded import move_stranded
from models.turns import abandoned_turns, response_deletion, web_processes
from pipelines.chat.cancellation import cancel_jobs
from pipelines.inference.registry import default_model
from pipelines.maintenance.expired_files import expired_files_job
from pipelines.routing.router import Router
from pipelines.schedules.firing import fire_due
from pipelines.schedules.starters import STARTERS, StartedWork
from scheduler.health import SchedulerHealth
from scheduler.liveness import liveness_file, noting_life
from scheduler.periodic_thread import PeriodicThread
from scheduler.timetable import TIMETABLE, store_timetable
from tasks.queue import Queue

log = logging.getLogger(__name__)

#: Seconds between two passes of the sweeper: the longest delay after a lost nudge or an expired lease.
SWEEP_INTERVAL = 1.0

#: Seconds between two looks for due schedules: the longest delay of a firing.
FIRE_INTERVAL = 0.5

#: Seconds between two passes of the router: how much later than after SANGHA_SPILL_AFTER a turn may move.
ROUTE_INTERVAL = 0.5

#: Seconds between two looks for jobs that the previous version left blocked during a rolling deploy.
UNBLOCK_INTERVAL = 60.0

#: Seconds between two looks for jobs in queues that no worker serves any more.
STRANDED_INTERVAL = 10.0

#: Seconds between two looks for processes of an earlier version, which keep an upgrade from being finalized.
UPGRADE_INTERVAL = 60.0

#: Seconds between two looks whether the promises are due for a check.
PROMISES_INTERVAL = 10.0

#: Seconds between two deletions of old announcements of events.
TRIM_INTERVAL = 10.0

#: Seconds after which the timetable is stored again. A scheduler of the previous version that restarts during a rolling
#: deploy stores its own; the new version corrects that within this time.
TIMETABLE_INTERVAL = 3600.0


class Contact:
    """How long the sweeper has been in contact with the database.

    No worker can renew its lease while the database is away. So a lease counts as expired only after the database could
    be reached for a full lease: by then every live worker has renewed its own.
    """

    def __init__(self) -> None:
        self._since = self._last = time.monotonic()

    def lost(self) -> None:
        """Begin anew after the database could not be reached."""
        self._since = self._last = time.monotonic()

    @property
    def has_lasted(self) -> bool:
        """Whether contacts have followed each other for a full lease, at the last one."""
        return self._last - self._since >= leases.LEASE

    def lasts(self) -> bool:
        """Note a contact. Returns whether contacts have followed each other for a full lease."""
        now = time.monotonic()
        if now - self._last > leases.LEASE / 2:  # this process was frozen, or the database slow
            self._since = now
        self._last = now
        return self.has_lasted


class Clock:
    """The work of the scheduler's threads."""

    def __init__(self, settings: Settings, database: Database, queue: Queue) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._timetable_due_at = 0.0
        self._unblock_due_at = 0.0
        self._stranded_due_at = 0.0
        self._upgrade_due_at = 0.0
        self._trim_due_at = 0.0
        self._contact = Contact()
        self._outdated = OutdatedWarning()
        cache = ServingCache(database, lambda: ModelDescription(default_model(settings)))
        self._router = Router(settings, database, cache)

    def sweep(self) -> None:
        """Queue what has become due, recover the jobs of dead workers, delete unclaimed results, end stalled batches.

        Publishing due jobs is the relay's task, which has an interval of its own. Raises Unavailable.
        """
        try:
            with self._database.connection() as connection:
                terminate_stalled_batches(connection)  # first: the statements below may need their locks
                queued = self._queue_due(connection)
                if self._contact.lasts():
                    queued += self._recover_from_dead(connection)
                self._finalize_upgrade(connection)
                queued += self._delete_expired_files(connection)
                self._cancel_abandoned(connection)
                deleted_job_ids = [
                    *response_deletion.delete_expired(connection),
                    *unclaimed_results.delete_unclaimed(connection),
                ]
        except Unavailable:
            self._contact.lost()
            raise
        for job_id in deleted_job_ids:
            self._queue.forget_journal(job_id)
        self._trim_announcements()
        if queued:
            self._queue.nudge()

    def _trim_announcements(self) -> None:
        if time.monotonic() >= self._trim_due_at:
            self._trim_due_at = time.monotonic() + TRIM_INTERVAL
            self._queue.trim_announcements()

    def _delete_expired_files(self, connection: Connection) -> bool:
        """Enqueue the deletion of expired files, if there are any. Returns whether a job was inserted."""
        if not files.expire_ended_imports(connection):
            return False
        with connection.transaction():
            return enqueue(connection, expired_files_job())

    def _cancel_abandoned(self, connection: Connection) -> None:
        """Cancel the abandoned turns whose grace period is over."""
        with connection.transaction():
            due = abandoned_turns.take_due(connection)
            cancelled = [cancel_jobs(connection, job_ids, account_id) for account_id, job_ids in due.items()]
        for cancellation in cancelled:
            self._queue.announce_cancellation(cancellation, cancellation.account_id)

    def _queue_due(self, connection: Connection) -> int:
        """Queue the jobs that have become due, and return their number."""
        queued = outbox.promote_due(connection) + outbox.unpublish_lost(connection, self._queue.broker_age())
        queued += completion_windows.promote_late(connection)
        if time.monotonic() >= self._unblock_due_at:
            queued += outbox.unblock_left(connection)
            self._unblock_due_at = time.monotonic() + UNBLOCK_INTERVAL
        if time.monotonic() >= self._stranded_due_at:
            queued += move_stranded(connection)
            with connection.transaction():
                spill_budget.correct_reservations(connection)
            self._stranded_due_at = time.monotonic() + STRANDED_INTERVAL
        return queued

    def _recover_from_dead(self, connection: Connection) -> int:
        """Requeue the jobs of dead workers, and return their number. Abandon the turns of dead web processes."""
        with connection.transaction():
            dead = web_processes.abandon_turns_of_dead(connection)
        if dead:
            log.warning("Abandoned the turns of %d dead web processes", len(dead))
        if requeued := leases.give_back_of_silent(connection):
            log.warning("Requeued %d jobs of dead workers", requeued)
        return requeued

    def _finalize_upgrade(self, connection: Connection) -> None:
        if time.monotonic() >= self._upgrade_due_at:
            self._upgrade_due_at = time.monotonic() + UPGRADE_INTERVAL
            self._outdated.look(connection)
            if finalize_when_due(connection):
                log.info(
                    "Finalized the upgrade to schema version %s: earlier versions no longer work", schema_version()
                )

    def fire(self) -> None:
        """Store the timetable if it is time to, then fire all due schedules. Raises Unavailable."""
        if time.monotonic() >= self._timetable_due_at:
            store_timetable(self._database)
            self._timetable_due_at = time.monotonic() + TIMETABLE_INTERVAL
        for fired in fire_due(self._database, self._settings, [*STARTERS, *TIMETABLE]):
            if fired.started is not None:
                self._announce(fired.started)

    def check_promises(self) -> None:
        """Check the promises, once the database has been reachable for a full lease: before, leases prove nothing.

        Raises Unavailable.
        """
        if self._contact.has_lasted:
            promises.check_all(self._database)

    def route(self) -> None:
        """Move turns between local models and the endpoint that helps them out. Raises Unavailable."""
        moved = self._router.run_pass()
        if moved.lanes:
            self._queue.nudge(*moved.lanes)

    def _announce(self, started: StartedWork) -> None:
        """Announce committed work to the queue; if this process dies before, the relay publishes the job anyway."""
        self._queue.announce_job(started.job_id, started.opening_events, started.account_id)
        if started.interrupted is not None:
            self._queue.announce_cancellation(started.interrupted, started.account_id)


def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigurationError where the metrics cannot be served."""
    database = Database.open(settings, size=4, name="scheduler")
    health, exposition = SchedulerHealth(), Exposition()
    health.install(exposition)
    process_gauges.install(exposition, [database])
    monitoring = MonitoringServer(settings, exposition.render, health).start()
    queue = Queue(settings, database, connect(settings.redis_address), interval=SWEEP_INTERVAL)
    clock = Clock(settings, database, queue)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = [
        PeriodicThread("sweeper", SWEEP_INTERVAL, noting_life(settings, clock.sweep)).start(),
        PeriodicThread("clock", FIRE_INTERVAL, clock.fire).start(),
        PeriodicThread("promises", PROMISES_INTERVAL, clock.check_promises).start(),
    ]
    if settings.spill_target is not None:
        threads.append(PeriodicThread("router", ROUTE_INTERVAL, clock.route).start())
    LogLevelWatch(settings).start()
    health.started(threads)
    log.info("Ready: sweeping every %g s, %d entries in the timetable", SWEEP_INTERVAL, len(TIMETABLE))
    stop.wait()
    for thread in threads:
        thread.stop()
    liveness_file(settings).unlink(missing_ok=True)
    queue.close()
    database.close()
    monitoring.stop()
