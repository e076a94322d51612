"""Run the jobs of a worker process.

    claim → open the journal → run the pipeline → settle its outcome, in one transaction

`settlement` does the last step. A failure at any step leaves the job's row in a state from which another worker can
continue.
"""

import logging
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import replace

import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from models.jobs import attempts, leases, workers
from models.jobs.attempt_context import (
    Attempt,
    Handler,
    Outcome,
    deadline_exceeded,
    has_passed,
    open_attempt,
    plain_ending,
)
from models.jobs.attempt_spans import attempt_span, note_outcome
from models.jobs.attempts import Ending
from models.jobs.catalogue import CATALOGUE, queue_of_message
from models.jobs.jobs import Job
from models.journal.writer import JournalWriter
from models.platform.database import Connection, Database
from models.platform.errors import (
    Cancelled,
    Fenced,
    Moved,
    PermanentFailure,
    Released,
    TimeLimitExceeded,
    Unavailable,
)
from models.platform.log_context import LogContext, log_context
from models.platform.metrics import name_model
from models.platform.settings import Settings
from models.platform.tracing import Span
from models.serving.served_models import ModelDescription, ServedModel
from tasks.attempt_metrics import observe_attempt, observe_claim, observe_end
from tasks.attempt_rates import AttemptRates
from tasks.broker import Broker
from tasks.relay import Relay
from tasks.retrying_database import RetryingDatabase
from tasks.settlement import Settlement

log = logging.getLogger(__name__)

#: Seconds before the next attempt at a job that was released because a dependency was unavailable.
RELEASE_DELAY = 1.0

#: Cancellations that are remembered for jobs which may be between their claim and their start.
MAX_REMEMBERED_CANCELLATIONS = 256

#: Characters of a traceback that are stored.
MAX_TRACEBACK_LENGTH = 20_000


class JobRunner:
    """Claims, runs and ends the jobs of one worker process."""

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
        self.served: list[ServedModel] = []
        self.stopping = threading.Event()
        self.lease_renewed_at = time.monotonic()
        self.rates = AttemptRates()
        self._retrying_database = RetryingDatabase(database, self.stopping)
        self._settlement = Settlement(self._retrying_database, client, writer, relay)
        self._claimed: dict[str, Job] = {}  # by id, from the claim to the end
        self._running: dict[str, Attempt] = {}
        # Cancellations of jobs that do not run here, or have not started yet.
        self._cancelled_job_ids: deque[str] = deque(maxlen=MAX_REMEMBERED_CANCELLATIONS)
        self._lock = threading.Lock()

    def declare(self, kind: str, handler: Handler) -> None:
        """Declare the Dramatiq actor of a kind of work."""
        entry = CATALOGUE[kind]

        def actor(job_id: str) -> None:
            message = CurrentMessage.get_current_message()
            if message is None:
                self.execute(handler, job_id, "")
            else:
                self.execute(handler, job_id, message.message_id, queue_of_message(message.queue_name))

        dramatiq.actor(actor_name=kind, queue_name=entry.queue, priority=entry.priority, broker=self.broker)(actor)

    def running_attempts(self) -> list[Attempt]:
        """Return the attempts that are running."""
        with self._lock:
            return list(self._running.values())

    def claimed_jobs(self) -> dict[str, Job]:
        """Return every claimed job by its id, including those that have not opened their journal."""
        with self._lock:
            return dict(self._claimed)

    def cancel(self, job_id: str) -> None:
        """Stop the attempt at a cancelled job, if it runs here."""
        with self._lock:
            attempt = self._running.get(job_id)
            if attempt is None:
                self._cancelled_job_ids.append(job_id)
        if attempt:
            attempt.stop("cancelled")

    def release_all(self) -> None:
        """Stop all attempts and release their jobs, which other workers continue."""
        self.stopping.set()
        for attempt in self.running_attempts():
            attempt.stop("released")

    def serve(self, description: ModelDescription, queue: str) -> None:
        """Register a model, which the pool's actors run, with the worker: before its first claim."""
        name_model(description.name)
        self.served.append(ServedModel(description.name, description, queue, description.slots))

    def execute(self, handler: Handler, job_id: str, message_id: str, queue: str | None = None) -> None:
        """Process one message of a queue: claim the job, run its pipeline and end it."""
        if self.stopping.is_set():
            self._decline(job_id)
            return
        job = self._claim(job_id, message_id, queue)
        if job is None:
            return
        with log_context(LogContext(job.id, job.kind, job.attempt)), attempt_span(job) as span:
            self._execute(handler, job, span)

    def _execute(self, handler: Handler, job: Job, span: Span) -> None:
        log.debug("Attempt %d of job %s begins: %s", job.attempt, job.id, job.kind)
        with self._lock:
            self._claimed[job.id] = job
        self.rates.begin(job)
        observe_claim(job)
        began, outcome = time.monotonic(), "error"
        try:
            outcome = self._run(handler, job)
        except Fenced:
            outcome = "fenced"
            log.info("Attempt %d of job %s stopped: a later attempt has claimed the job", job.attempt, job.id)
            self._resend_if_forgotten(job)
        finally:
            self.rates.finish(job)
            observe_attempt(job, outcome, time.monotonic() - began)
            note_outcome(span, outcome)
            with self._lock:
                if self._claimed.get(job.id) is job:
                    del self._claimed[job.id]
                    self._running.pop(job.id, None)
            log.debug("Attempt %d of job %s has ended: %s", job.attempt, job.id, outcome)

    def _decline(self, job_id: str) -> None:
        """Leave a job to other workers: a thread that waited for a message takes one more after it was stopped."""
        lane = self._retrying_database.run_in_autocommit(lambda connection: attempts.decline(connection, job_id))
        if lane is not None:
            self.relay.nudge(lane)

    def _resend_if_forgotten(self, job: Job) -> None:
        """Publish the job again if its row lacks this claim, without waiting until its message counts as lost."""
        with suppress(Unavailable), self.database.connection() as connection:
            leases.resend_forgotten(connection, [job])

    def _run(self, handler: Handler, job: Job) -> str:
        """Run the job's pipeline and write its outcome, whose name is returned. Raises Fenced."""
        try:
            attempt = open_attempt(job, self.database, self.client, self.writer)
        except (redis.RedisError, Unavailable) as error:
            log.warning("Releasing job %s: cannot open its journal: %s", job.id, error)
            self._settlement.release(job, [], delay=RELEASE_DELAY)
            return "released"
        self._register(attempt)
        try:
            return self._conclude(handler, attempt)
        except Fenced:
            attempt.journal.fenced = True
            raise

    def _claim(self, job_id: str, message_id: str, queue: str | None) -> Job | None:
        tries = 0

        def claim(connection: Connection) -> Job | None:
            nonlocal tries
            tries += 1
            self._renew_old_lease(connection)
            return attempts.claim(
                connection, job_id, message_id=message_id, worker=self.name, queue=queue, unsure=tries > 1
            )

        return self._retrying_database.run_in_autocommit(claim)

    def _renew_old_lease(self, connection: Connection) -> None:
        """Renew a lease that may have expired while the process was frozen: the claim would count as a crash."""
        now = time.monotonic()
        if now > self.lease_renewed_at + leases.LEASE - leases.RENEWAL:
            workers.renew(connection, self.name)
            self.lease_renewed_at = now

    def _register(self, attempt: Attempt) -> None:
        """Make the attempt visible to cancellations, and apply one that has arrived since the claim."""
        with self._lock:
            if self._claimed.get(attempt.job.id) is not attempt.job:
                raise Fenced(f"attempt {attempt.job.attempt} of {attempt.job.id} has ended")
            self._running[attempt.job.id] = attempt
            if attempt.job.id in self._cancelled_job_ids:
                attempt.stop("cancelled")
        if self.stopping.is_set():
            attempt.stop("released")

    def _settle(self, attempt: Attempt, outcome: Outcome) -> str:
        self._settlement.settle(attempt, outcome)
        if not isinstance(outcome, Ending):
            return "waiting"
        self.rates.count_end(attempt.job)
        observe_end(attempt, outcome)
        return outcome.state

    def _conclude(self, handler: Handler, attempt: Attempt) -> str:
        try:
            try:
                return self._settle(attempt, self._outcome(handler, attempt))
            except Cancelled:
                return self._settle(attempt, handler.end(attempt, "cancelled", None))
            except PermanentFailure as error:  # its children cannot be enqueued
                return self._settle(
                    attempt, handler.end(attempt, "failed", {"code": error.code, "message": error.message})
                )
        except Fenced:
            raise
        except Moved as error:
            log.log(
                logging.DEBUG if error.quiet else logging.INFO,
                "Moving job %s to %s: %s",
                attempt.job.id,
                error.queue,
                error,
            )
            self._settlement.move(attempt.job, attempt.journal.archivable(), error)
            return "moved"
        except Released as error:
            events = attempt.journal.archivable()
            self._settlement.release(attempt.job, events, delay=error.delay, advanced=error.advanced)
            return "released"
        except (Unavailable, redis.RedisError) as error:
            log.warning("Releasing job %s: a dependency is unavailable: %s", attempt.job.id, error)
            self._settlement.release(attempt.job, attempt.journal.archivable(), delay=RELEASE_DELAY)
            return "released"
        except Exception as error:  # noqa: BLE001 - after any error the job must end or be retried
            return self._retry_or_end_dead(handler, attempt, error)

    def _outcome(self, handler: Handler, attempt: Attempt) -> Outcome:
        """Run the pipeline, or end a job that was cancelled or has no attempts left. Raises Cancelled."""
        job = attempt.job
        if job.cancel_requested_at is not None:
            raise Cancelled("cancelled on request")
        if job.pending_children and job.join_rule != "all":
            self._settlement.cancel_children(job)
        if job.failures >= CATALOGUE[job.kind].attempts:
            return handler.end(
                attempt,
                "dead",
                job.error or {"code": "worker_lost", "message": "Every worker that ran this job crashed."},
            )
        try:
            if has_passed(job.deadline_at):
                raise deadline_exceeded(job)
            return handler.run(attempt)
        except PermanentFailure as error:
            return handler.end(attempt, "failed", {"code": error.code, "message": error.message})
        except TimeLimitExceeded as error:
            return handler.end(attempt, "failed", {"code": "time_limit_exceeded", "message": str(error)})

    def _retry_or_end_dead(self, handler: Handler, attempt: Attempt, error: Exception) -> str:
        """Schedule another attempt, or end the job as dead with its traceback."""
        job = attempt.job
        trace = _escape("".join(traceback.format_exception(error)))[-MAX_TRACEBACK_LENGTH:]
        public_error = {
            "code": "server_error",
            "message": "The job failed because of an internal error, which was logged.",
        }
        if job.failures + 1 < CATALOGUE[job.kind].attempts:
            log.warning("Attempt %d of job %s failed; it will be retried: %r", job.attempt, job.id, error)
            self._settlement.retry(attempt, public_error, trace, getattr(error, "retry_after", None) or 0)
            return "retried"
        log.error("Job %s is dead after attempt %d", job.id, job.attempt, exc_info=error)
        ending = self._dead_ending(handler, attempt, public_error)
        try:
            return self._settle(attempt, replace(ending, error=public_error, traceback=trace, follow_ups=()))
        except (Fenced, Unavailable):
            raise
        except Exception:
            log.exception("Job %s: cannot record its ending; ending it without a record", job.id)
            ending = plain_ending(attempt, "dead", public_error)
            return self._settle(attempt, Ending("dead", ending.events, error=public_error, traceback=trace))

    def _dead_ending(self, handler: Handler, attempt: Attempt, public_error: dict[str, str]) -> Ending:
        try:
            return handler.end(attempt, "dead", public_error)
        except Fenced:
            raise
        except Exception:
            log.exception("Job %s: its handler cannot compose the ending; using a plain one", attempt.job.id)
            return plain_ending(attempt, "dead", public_error)


def _escape(text: str) -> str:
    """Escape NUL characters and lone surrogates, which Postgres cannot store."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
