"""The heartbeat of a worker: renews its leases, saves checkpoints, hears of cancels."""

import logging
import threading
import time

import redis

from models.jobs import attempts, workers
from models.jobs.attempt_context import Attempt
from models.journal import journal
from models.platform.errors import Fenced, Unavailable
from tasks.job_runner import JobRunner

log = logging.getLogger(__name__)

#: Seconds that an attempt may run on beyond its time limit before its lease is let go.
GRACE = 30.0

#: Seconds between two tries while Postgres does not answer: a lease must not end for want of one heartbeat.
RETRY_INTERVAL = 1.0

#: Seconds that the listener waits for a message before it looks whether the worker leaves.
LISTEN_INTERVAL = 1.0


class Heartbeat:
    """Two threads: one beats every few seconds, one listens for cancels so that they take effect at once."""

    def __init__(self, runner: JobRunner, *, host: str, pid: int, pools: list[str], queues: list[str], threads: int):
        self._runner = runner
        self._identity = {"host": host, "pid": pid, "pools": pools, "queues": queues, "threads": threads}
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
            threading.Thread(target=self._listen, name="cancel-listener", daemon=True),
        ]

    def start(self) -> None:
        """Say that the worker is ready, then keep saying so."""
        self._once()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take the worker off the list."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * LISTEN_INTERVAL)
        try:
            with self._runner.database.connection() as connection:
                workers.unregister(connection, self._runner.name)
        except Unavailable:
            return  # it will be forgotten in time

    def _beat(self) -> None:
        pause = attempts.RENEWAL
        while not self._stopped.wait(pause):
            try:
                self._once()
                pause = attempts.RENEWAL
            except Unavailable as error:
                log.warning("the heartbeat does not reach the database: %s", error)
                pause = RETRY_INTERVAL
            except Exception:
                log.exception("the heartbeat failed")
                pause = RETRY_INTERVAL

    def _once(self) -> None:
        running = {attempt.job.id: attempt for attempt in self._runner.running_attempts()}
        overdue = {job_id for job_id, attempt in running.items() if _overdue(attempt)}
        held = {job_id: attempt for job_id, attempt in self._runner.claimed_attempts().items() if job_id not in overdue}
        with self._runner.database.connection() as connection:
            workers.register(connection, self._runner.name, **self._identity)  # type: ignore[arg-type]
            renewed = attempts.renew_leases(connection, held) if held else {}
        for job_id, attempt in running.items():
            if job_id in held:
                self._heed(attempt, renewed.get(job_id))

    def _heed(self, attempt: Attempt, cancelled: bool | None) -> None:
        """What the renewal said: None when the job is no longer this attempt's, else whether it was cancelled."""
        if cancelled is None:
            attempt.stop("overtaken")  # or it has just ended by itself, and nobody asks any more
        elif cancelled:
            attempt.stop("cancelled")
        else:
            self._checkpoint(attempt)

    def _checkpoint(self, attempt: Attempt) -> None:
        unarchived = attempt.journal.unarchived()
        if not unarchived:
            return
        try:
            with self._runner.database.transaction() as connection:
                attempts.checkpoint(connection, attempt.job, unarchived)
        except Fenced:
            return  # it ended meanwhile, or was overtaken: the next beat or write will tell
        attempt.journal.mark_archived(unarchived[-1].sequence)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_until_lost()
            except (redis.RedisError, OSError) as error:
                log.warning("the cancel channel is lost, will be back: %s", error)
                self._stopped.wait(RETRY_INTERVAL / 4)

    def _listen_until_lost(self) -> None:
        with self._runner.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(journal.CANCEL_CHANNEL)
            while not self._stopped.is_set():
                message = channel.get_message(timeout=LISTEN_INTERVAL)
                if message is not None:
                    for job_id in message["data"].decode().split("\n"):
                        self._runner.cancel(job_id)


def _overdue(attempt: Attempt) -> bool:
    return time.monotonic() > attempt.deadline + GRACE
