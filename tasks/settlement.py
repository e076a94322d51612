"""Write the outcome of an attempt: its job ends, waits for children, is tried again, is released or moved.

Each is one transaction, which is repeated while Postgres is unavailable, and fenced. After it the relay publishes what
has become due, and the journal gets the last events.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import redis

from models.access import rate_limits
from models.delivery import events as account_events
from models.jobs import attempts, jobs
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren
from models.jobs.attempts import Ending
from models.jobs.cancellation import Cancellation, cancel_all
from models.jobs.children import wait_for_children
from models.jobs.jobs import PLATFORM_ACCOUNT, Job, NewJob, lane_of
from models.jobs.unclaimed_results import KINDS as ONE_SHOT_KINDS
from models.journal import journal
from models.journal.events import Event
from models.journal.journal import Claim
from models.journal.writer import JournalWriter
from models.platform.database import Connection
from models.platform.errors import Cancelled, Fenced, InsufficientQuota, Moved, Released, SpendingLimitReached
from tasks.relay import Relay
from tasks.retrying_database import RetryingDatabase

log = logging.getLogger(__name__)


class Settlement:
    """Settles the attempts of one worker process. All methods raise Fenced if another claim exists."""

    def __init__(self, database: RetryingDatabase, client: redis.Redis, writer: JournalWriter, relay: Relay) -> None:
        self._database = database
        self._client = client
        self._writer = writer
        self._relay = relay

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """End the job, or let it wait for children. Raises Cancelled for a wait of a cancelled job."""
        if isinstance(outcome, WaitForChildren):
            self._wait(attempt, outcome)
        else:
            self._end(attempt, outcome)

    def retry(self, attempt: Attempt, error: Mapping[str, Any], traceback: str, retry_after: float = 0) -> None:
        """Schedule another attempt after a failure, no sooner than after `retry_after` seconds."""
        job, events = attempt.job, attempt.journal.archivable()
        try:
            self._database.run(
                lambda connection: attempts.retry(connection, job, error, traceback, events, retry_after=retry_after)
            )
        except psycopg.Error:  # the events may be the reason, and the next attempt finds them in Redis
            log.exception("Job %s: cannot archive its events; retrying it without them", job.id)
            self._database.run(
                lambda connection: attempts.retry(connection, job, error, traceback, retry_after=retry_after)
            )

    def release(self, job: Job, events: Sequence[Event], *, delay: float, advanced: bool = False) -> None:
        """Put the job back without counting a failure; those before it no longer count if it has `advanced`."""
        self._database.run(lambda connection: attempts.release(connection, job, events, delay=delay, advanced=advanced))
        self._relay.nudge(lane_of(job))

    def move(self, job: Job, events: Sequence[Event], moved: Moved) -> None:
        """Put the job into another queue without counting a failure."""
        self._database.run(lambda connection: attempts.move(connection, job, moved, events))
        self._relay.nudge(lane_of(job))

    def cancel_children(self, job: Job) -> None:
        """Cancel the children that are unfinished although their parent does not wait for them any more.

        A later attempt may still need them, hence the fence.
        """

        def cancel(connection: Connection) -> Cancellation:
            children = [child.id for child in jobs.children(connection, job.id) if not child.ended]
            fence = partial(attempts.lock_job, connection, job)
            return cancel_all(connection, children, job.account_id, check=fence)

        cancelled = self._database.run(cancel)
        with suppress(redis.RedisError):  # readers find the endings in the archive, workers by their heartbeats
            for job_id, last_event in cancelled.ended.items():
                journal.append(self._client, Claim(job_id), [last_event])
            journal.publish_cancellations(self._client, cancelled.running)
        if cancelled.lanes:
            self._relay.nudge(*cancelled.lanes)

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        if attempt.job.pending_children:  # it did not wait for them all. First: if this process dies, it ends later
            self.cancel_children(attempt.job)
        if lanes := self._end_row(attempt, ending):
            self._relay.nudge(*lanes)
        correction = rate_limits.correction_command(attempt.job.account_id, attempt.job.arguments, ending.tokens)
        if correction is not None:
            self._writer.send_with_next_batch(correction)
        attempt.journal.append_endings(ending.events)

    def _end_row(self, attempt: Attempt, ending: Ending) -> Collection[str]:
        """End the job. Returns the lanes in which the relay should publish."""
        events = [*attempt.journal.archivable(), *ending.events]

        def end(connection: Connection) -> Collection[str]:
            _check_abandoned(attempt, ending)
            lanes = attempts.end(connection, attempt.job, ending, events)
            if ending.state == "dead":
                _record_dead(connection, attempt.job)
            return lanes

        try:
            return self._database.run_in_batch(end)
        except Fenced:
            # Rejected: either a later attempt has claimed the job, or this ending was committed and its
            # confirmation was lost with the connection.
            if self._database.run(lambda connection: attempts.has_ended(connection, attempt.job)):
                return _lanes(attempt.job, ending.follow_ups)
            raise

    def _wait(self, attempt: Attempt, outcome: WaitForChildren) -> None:
        job, events = attempt.job, attempt.journal.archivable()
        try:
            self._database.run(lambda connection: _begin_wait(connection, job, outcome, events))
        except (InsufficientQuota, SpendingLimitReached) as error:
            raise Released(f"Its children do not fit what the month has left: {error.message}") from None
        except Fenced:
            # Rejected: either a later attempt has claimed the job, or a cancellation came first, which this attempt
            # has to end.
            if self._database.run(
                lambda connection: attempts.is_current(connection, job.id, job.attempt, job.claim_id)
            ):
                raise Cancelled("cancelled on request") from None
            raise
        self._relay.nudge(*_lanes(job, outcome.children))


def _begin_wait(connection: Connection, job: Job, outcome: WaitForChildren, events: Sequence[Event]) -> None:
    if outcome.reserve:
        outcome.reserve(connection)  # it locks the account, which comes before any job
    wait_for_children(
        connection,
        job,
        outcome.children,
        events,
        join_rule=outcome.join_rule,
        timeout=outcome.timeout,
        within_month=outcome.within_month,
        record=outcome.record,
        spent=outcome.spent,
    )


def _check_abandoned(attempt: Attempt, ending: Ending) -> None:
    """Raise Cancelled for a result that only a request would read, which has gone away."""
    if ending.state == "completed" and attempt.job.kind in ONE_SHOT_KINDS:
        reason = attempt.stop_reason()
        if isinstance(reason, Cancelled):
            raise reason


def _record_dead(connection: Connection, job: Job) -> None:
    """Record the event of a dead job of an account. The platform has no events."""
    if job.account_id != PLATFORM_ACCOUNT:
        account_events.record(connection, job.account_id, "job.dead", {"id": job.id, "kind": job.kind})


def _lanes(job: Job, enqueued: Sequence[NewJob]) -> set[str]:
    """Return the lanes in which the end of a job, or its wait, may make jobs due."""
    return {job.account_id, lane_of(job), *map(lane_of, enqueued)}
