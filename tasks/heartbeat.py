"""The heartbeat of a worker: renew its lease, compare its jobs with their rows, write checkpoints, receive
cancellations.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import redis

from models.jobs import attempts, leases, workers
from models.jobs.attempt_context import Attempt
from models.jobs.jobs import Job
from models.journal import journal
from models.platform.code_check import OutdatedWarning
from models.platform.database import Connection
from models.platform.errors import Fenced, Unavailable
from models.serving import served_models
from models.serving.spill_budget import count_ended
from tasks.job_runner import JobRunner

log = logging.getLogger(__name__)

#: Seconds past its time limit after which an attempt that does not stop is abandoned.
OVERDUE_GRACE = 30.0

#: Seconds between two tries while Postgres is unavailable, so that no lease expires because of one failed heartbeat.
RETRY_INTERVAL = 1.0

#: Seconds between two connections to the cancellation channel.
RECONNECT_INTERVAL = 0.25

#: Seconds between two looks whether jobs of the served models wait in a queue that they had before.
MODELS_INTERVAL = 30.0

#: Seconds that the listener waits for a message before it checks whether the worker is stopping.
LISTEN_INTERVAL = 1.0


class Heartbeat:
    """Two threads: one renews leases every few seconds, one listens for cancellations, which take effect at once."""

    def __init__(self, runner: JobRunner, *, host: str, pid: int, pools: list[str], threads: Mapping[str, int]):
        self._runner = runner
        self._host, self._pid, self._pools, self._threads_by_queue = host, pid, pools, threads
        self._unknown: dict[str, tuple[int, UUID]] = {}  # of the last beat
        self._outdated = OutdatedWarning()
        self._models_renewed_at = time.monotonic()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
            threading.Thread(target=self._listen, name="cancel-listener", daemon=True),
        ]

    @property
    def threads(self) -> list[threading.Thread]:
        """Both threads."""
        return self._threads

    def start(self) -> None:
        """Register the worker and start the threads."""
        self._forget_threads_of_dead()
        self._register_models()
        self._beat_once()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads and unregister the worker."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * LISTEN_INTERVAL)
        try:
            with self._runner.database.connection() as connection:
                workers.unregister(connection, self._runner.name)
        except Unavailable:
            return  # the row is deleted once its last heartbeat is old enough

    def _forget_threads_of_dead(self) -> None:
        """Count no threads of workers that died on this host, as the one that this process replaces."""

        def is_alive(pid: int) -> bool:
            return pid != self._pid and process_exists(pid)

        with self._runner.database.connection() as connection:
            workers.forget_threads_of_dead(connection, self._runner.name, self._host, is_alive)

    def _register_models(self) -> None:
        """Store what the worker serves, before it claims the first job."""
        for model in self._runner.served:
            with self._runner.database.transaction() as connection:
                served_models.register(connection, model.description, model.queue)

    def _beat(self) -> None:
        interval = leases.RENEWAL
        while not self._stopped.wait(interval):
            try:
                self._beat_once()
                interval = leases.RENEWAL
            except Unavailable as error:
                log.warning("Heartbeat failed, retrying: database unavailable: %s", error)
                interval = RETRY_INTERVAL
            except Exception:
                log.exception("Heartbeat failed, retrying")
                interval = RETRY_INTERVAL

    def _beat_once(self) -> None:
        held = self._runner.claimed_jobs()
        running = {attempt.job.id: attempt for attempt in self._runner.running_attempts()}
        overdue = [attempt.job for attempt in running.values() if _is_overdue(attempt)]
        now = time.monotonic()
        with self._runner.database.connection() as connection:
            self._outdated.look(connection)
            self._register(connection, overdue)
            for job in overdue:
                leases.abandon(connection, job)
            claims = leases.check_claims(connection, self._runner.name, held)
            self._release_unknown(connection, claims.unknown)
            superseded = [job for job_id, job in held.items() if job_id not in claims.current]
            leases.resend_forgotten(connection, superseded)
            self._count_ended(connection)
        self._runner.lease_renewed_at = now
        for job_id, attempt in running.items():
            if held.get(job_id) is attempt.job:
                self._apply(attempt, claims.current.get(job_id))

    def _register(self, connection: Connection, overdue: Sequence[Job]) -> None:
        served = self._runner.served
        workers.register(
            connection,
            self._runner.name,
            host=self._host,
            pid=self._pid,
            pools=self._pools,
            threads=self._usable_threads(overdue),
            served=[served_models.worker_entry(model) for model in served],
            mean_seconds=self._runner.rates.mean_seconds(),
        )
        if served and time.monotonic() > self._models_renewed_at + MODELS_INTERVAL:
            self._models_renewed_at = time.monotonic()
            served_models.renew(connection, served)

    def _count_ended(self, connection: Connection) -> None:
        """Add the turns that have ended since the last beat to those of the day."""
        ended = self._runner.rates.take_ended()
        try:
            count_ended(connection, ended)
        except Exception:
            self._runner.rates.put_back(ended)
            raise

    def _usable_threads(self, overdue: Sequence[Job]) -> dict[str, int]:
        """Return the threads of each queue, without those that are stuck in attempts which do not stop."""
        stuck = Counter(job.queue for job in overdue)
        return {queue: max(0, threads - stuck[queue]) for queue, threads in self._threads_by_queue.items()}

    def _release_unknown(self, connection: Connection, unknown: dict[str, tuple[int, UUID]]) -> None:
        """Put back jobs that this worker runs by their rows only: twice, since a claim may be in progress."""
        for job_id, claim in unknown.items():
            if self._unknown.get(job_id) == claim:
                log.warning("Releasing job %s, which this worker does not run", job_id)
                leases.release_unknown(connection, job_id, *claim)
        self._unknown = unknown

    def _apply(self, attempt: Attempt, cancelled: bool | None) -> None:
        """Stop or checkpoint an attempt; `cancelled` is None when the job no longer belongs to it."""
        if cancelled is None:
            attempt.stop("overtaken")  # has no effect on an attempt that has just ended
        elif cancelled:
            attempt.stop("cancelled")
        else:
            self._checkpoint(attempt)

    def _checkpoint(self, attempt: Attempt) -> None:
        unarchived = attempt.journal.unarchived()
        if not unarchived:
            return
        events = attempt.journal.archivable()
        try:
            with self._runner.database.transaction() as connection:
                attempts.checkpoint(connection, attempt.job, events)
        except Fenced:
            return  # the attempt has ended, or a later one has claimed the job: the next heartbeat or write stops it
        attempt.journal.mark_archived(unarchived[-1].sequence)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_on_connection()
            except (redis.RedisError, OSError) as error:
                log.warning("Cancellation channel lost, reconnecting: %s", error)
                self._stopped.wait(RECONNECT_INTERVAL)

    def _listen_on_connection(self) -> None:
        with self._runner.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(journal.CANCEL_CHANNEL)
            while not self._stopped.is_set():
                message = channel.get_message(timeout=LISTEN_INTERVAL)
                if message is not None:
                    for job_id in message["data"].decode().split("\n"):
                        self._runner.cancel(job_id)


def process_exists(pid: int) -> bool:
    """Return whether this host, or container, has a process with this pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_overdue(attempt: Attempt) -> bool:
    return time.monotonic() > attempt.deadline + OVERDUE_GRACE
