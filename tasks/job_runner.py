"""The runner: what all jobs of a worker process share, and the one wrapper around every job.

    claim → open the journal → run the pipeline → end, in one transaction → close the journal

Whatever goes wrong in between leaves a row that says what to do next: the wrapper never needs to know at which line.
"""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from models.access import rate_limits
from models.jobs import attempts
from models.jobs.attempt_context import Attempt, Handler, Outcome, Waiting, open_attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job
from models.journal.events import Event
from models.journal.writer import JournalWriter
from models.platform.database import Connection, Database
from models.platform.errors import Cancelled, Fenced, PermanentFailure, Released, TimeLimitExceeded, Unavailable
from models.platform.settings import Settings
from tasks.broker import Broker
from tasks.relay import Relay

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two tries while Postgres does not answer; a job waits when Redis does not.
RETRY_INTERVAL = 0.25
RELEASE_DELAY = 1.0

#: Cancels that a worker remembers for a job that it may just be about to run.
REMEMBERED_CANCELS = 256

#: What operators keep of a traceback, in characters.
LONGEST_TRACEBACK = 20_000


class JobRunner:
    """One worker process: its name, its connections, and the attempts that run in it."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        database: Database,
        client: redis.Redis,
        broker: Broker,
        writer: JournalWriter,
        relay: Relay,
    ) -> None:
        self.name = name
        self.settings = settings
        self.database = database
        self.client = client
        self.broker = broker
        self.writer = writer
        self.relay = relay
        self.leaving = threading.Event()
        self._claimed: dict[str, int] = {}  # job id → attempt, from the claim to the end
        self._running: dict[str, Attempt] = {}
        # Cancels of jobs that do not run here, or not yet.
        self._cancelled_elsewhere: deque[str] = deque(maxlen=REMEMBERED_CANCELS)
        self._lock = threading.Lock()

    def declare(self, kind: str, handler: Handler) -> None:
        """Make a pipeline the actor of a kind of work."""
        entry = CATALOGUE[kind]

        def actor(job_id: str) -> None:
            message = CurrentMessage.get_current_message()
            self.execute(handler, job_id, message.message_id if message else "")

        dramatiq.actor(actor_name=kind, queue_name=entry.queue, priority=entry.priority, broker=self.broker)(actor)

    def running(self) -> list[Attempt]:
        """The attempts that run now."""
        with self._lock:
            return list(self._running.values())

    def held(self) -> dict[str, int]:
        """Job id → attempt of all that is claimed, also what has still to open its journal."""
        with self._lock:
            return dict(self._claimed)

    def cancel(self, job_id: str) -> None:
        """Stop an attempt whose job was cancelled, if it runs here."""
        with self._lock:
            attempt = self._running.get(job_id)
            if attempt is None:
                self._cancelled_elsewhere.append(job_id)
        if attempt:
            attempt.stop("cancelled")

    def leave(self) -> None:
        """Stop all attempts: another worker continues them."""
        self.leaving.set()
        for attempt in self.running():
            attempt.stop("released")

    def execute(self, handler: Handler, job_id: str, message_id: str) -> None:
        """One delivery of one job."""
        job = self._claim(job_id, message_id)
        if job is None:
            return
        with self._lock:
            self._claimed[job.id] = job.attempt
        try:
            self._run(handler, job)
        except Fenced:
            log.info("attempt %d of %s was overtaken", job.attempt, job.id)
        finally:
            with self._lock:
                if self._claimed.get(job.id) == job.attempt:
                    del self._claimed[job.id]
                    self._running.pop(job.id, None)

    def _run(self, handler: Handler, job: Job) -> None:
        try:
            attempt = open_attempt(job, self.database, self.client, self.writer)
        except (redis.RedisError, Unavailable) as error:
            log.warning("%s waits, for its journal can't be opened: %s", job.id, error)
            self._release(job, [], delay=RELEASE_DELAY)
            return
        self._register(attempt)
        try:
            self._conclude(handler, attempt)
        except Fenced:
            attempt.journal.fenced = True
            raise

    def _claim(self, job_id: str, message_id: str) -> Job | None:
        tries = 0

        def claim(connection: Connection) -> Job | None:
            nonlocal tries
            tries += 1
            return attempts.claim(connection, job_id, message_id=message_id, worker=self.name, unsure=tries > 1)

        return self._patiently(claim, self.database.connection)

    def _register(self, attempt: Attempt) -> None:
        """From here on the attempt hears of cancels; one that came since the claim it hears now."""
        with self._lock:
            if self._claimed.get(attempt.job.id) != attempt.job.attempt:
                raise Fenced(f"attempt {attempt.job.attempt} of {attempt.job.id} is over")
            self._running[attempt.job.id] = attempt
            if attempt.job.id in self._cancelled_elsewhere:
                attempt.stop("cancelled")
        if self.leaving.is_set():
            attempt.stop("released")

    def _conclude(self, handler: Handler, attempt: Attempt) -> None:
        try:
            try:
                self._settle(attempt, self._outcome(handler, attempt))
            except Cancelled:
                self._settle(attempt, handler.end(attempt, "cancelled", None))
        except Fenced:
            raise
        except Released:
            self._release(attempt.job, attempt.journal.unarchived())
        except (Unavailable, redis.RedisError) as error:
            log.warning("%s waits, for something it needs is down: %s", attempt.job.id, error)
            self._release(attempt.job, attempt.journal.unarchived(), delay=RELEASE_DELAY)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job must end or be tried again
            self._failed(handler, attempt, error)

    def _outcome(self, handler: Handler, attempt: Attempt) -> Outcome:
        """Run the pipeline, or end at once what may not run any more. Raises Cancelled."""
        job = attempt.job
        if job.cancel_requested_at is not None:
            raise Cancelled("cancelled on request")
        if job.failures >= CATALOGUE[job.kind].attempts:
            return handler.end(attempt, "dead", job.error or {"code": "worker_lost", "message": "Its workers died."})
        try:
            return handler.run(attempt)
        except PermanentFailure as error:
            return handler.end(attempt, "failed", {"code": error.code, "message": error.message})
        except TimeLimitExceeded as error:
            return handler.end(attempt, "failed", {"code": "time_limit_exceeded", "message": str(error)})

    def _failed(self, handler: Handler, attempt: Attempt, error: Exception) -> None:
        """Another attempt, or after the last one: dead, with its traceback."""
        job = attempt.job
        trace = _storable("".join(traceback.format_exception(error)))[-LONGEST_TRACEBACK:]
        told = {"code": "server_error", "message": "The work failed; it has been noted for the operators."}
        if job.failures + 1 < CATALOGUE[job.kind].attempts:
            log.warning("attempt %d of %s failed: %r", job.attempt, job.id, error)
            unarchived = attempt.journal.unarchived()
            self._patiently(lambda connection: attempts.retry(connection, job, told, trace, unarchived))
            return
        log.error("%s is dead after attempt %d: %r", job.id, job.attempt, error)
        ending = self._last_words(handler, attempt, told)
        try:
            self._settle(attempt, replace(ending, error=told, traceback=trace, follow_ups=()))
        except (Fenced, Unavailable):
            raise
        except Exception:
            log.exception("%s can't record how it ended", job.id)
            ending = plain_ending(attempt, "dead", told)
            self._settle(attempt, Ending("dead", ending.events, error=told, traceback=trace))

    def _last_words(self, handler: Handler, attempt: Attempt, told: dict[str, str]) -> Ending:
        try:
            return handler.end(attempt, "dead", told)
        except Fenced:
            raise
        except Exception:
            log.exception("%s can't say how it ended", attempt.job.id)
            return plain_ending(attempt, "dead", told)

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, Waiting):
            self._wait(attempt, outcome)
            return
        if self._end(attempt, outcome):
            self.relay.nudge()
        if (
            command := rate_limits.correction_command(attempt.job.account_id, attempt.job.arguments, outcome.tokens)
        ) is not None:
            self.writer.send_along(command)
        attempt.journal.close(outcome.events)

    def _wait(self, attempt: Attempt, waiting: Waiting) -> None:
        job, unarchived = attempt.job, attempt.journal.unarchived()
        try:
            self._patiently(lambda connection: attempts.wait_for(connection, job, waiting.children, unarchived))
        except Fenced:
            # Refused: overtaken, or a cancel came first, which nobody but this attempt will settle.
            if self._patiently(lambda connection: attempts.is_current(connection, job.id, job.attempt)):
                raise Cancelled("cancelled on request") from None
            raise
        self.relay.nudge()

    def _end(self, attempt: Attempt, ending: Ending) -> bool:
        unarchived = [*attempt.journal.unarchived(), *ending.events]
        try:
            return self._patiently(
                lambda connection: attempts.end(connection, attempt.job, ending, unarchived), self.database.batch
            )
        except Fenced:
            # Refused: overtaken, or it was this very ending whose confirmation got lost with the connection.
            if self._patiently(lambda connection: attempts.has_ended(connection, attempt.job)):
                return True
            raise

    def _release(self, job: Job, unarchived: Sequence[Event], *, delay: float = 0) -> None:
        self._patiently(lambda connection: attempts.release(connection, job, unarchived, delay=delay))
        self.relay.nudge()

    def _patiently(
        self,
        step: Callable[[Connection], T],
        within: Callable[[], AbstractContextManager[Connection]] | None = None,
    ) -> T:
        """Do a step in a transaction of its own, again and again while Postgres does not answer."""
        while True:
            try:
                with (within or self.database.transaction)() as connection:
                    return step(connection)
            except Unavailable as error:
                if self.leaving.is_set():
                    raise
                log.warning("waiting for the database: %s", error)
                time.sleep(RETRY_INTERVAL)


def _storable(text: str) -> str:
    """Text that Postgres can hold."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
