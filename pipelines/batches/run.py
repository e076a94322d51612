"""Run a batch: a job that looks at it about once a second, and holds no thread while its lines run.

Each step is a transaction that locks the job by its fence, and the next attempt goes on from what it has stored: the
offset in the input file, the lines that have begun, the answers of those that have ended, the files. So a process may
be killed between any two statements, and each line has one answer in the end.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import redis

from models.accounts.ownership import Access
from models.batches import lines, progress
from models.batches.batches import Batch, BatchEnd, read
from models.delivery import events
from models.delivery.event_types import EventType
from models.jobs import cancellation
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.journal import journal
from models.platform.database import Connection
from models.platform.errors import Released
from pipelines.batches.begin_lines import begin_lines
from pipelines.batches.end_lines import end_lines, end_unfinished
from pipelines.batches.validate import line_error, validate
from pipelines.batches.worker import BatchContext, BatchWorker, read_context, read_known_models
from pipelines.batches.write_files import delete_lines, write_files
from pipelines.time_slice import TimeSlice

#: Seconds between two looks at a batch whose lines run: after one at which lines have ended, and otherwise.
BUSY_DELAY, IDLE_DELAY = 0.5, 2.0

#: Running lines that are cancelled at a time.
CANCELLED = 100

#: The type of the event of a batch that has ended.
EVENTS: Mapping[BatchEnd, EventType] = {
    "completed": "batch.completed",
    "failed": "batch.failed",
    "expired": "batch.expired",
    "cancelled": "batch.cancelled",
}


def run(worker: BatchWorker, client: redis.Redis, attempt: Attempt) -> Ending:
    """Do what is to be done for the batch now. Raises Released until it has ended, Unavailable, and the stop reason."""
    time_slice = TimeSlice(attempt)
    look = _Look(worker, client, attempt, reported=(attempt.job.progress or {}).get("done", 0))
    while True:
        time_slice.check()
        batch = look.batch()
        match batch.status:
            case "validating":
                look.validate(batch)
            case "in_progress":
                look.go_on(batch)
            case "finalizing" | "cancelling" if batch.in_progress_at and batch.ended_lines < batch.total_lines:
                look.stop_lines(batch)
            case "finalizing" | "cancelling":
                look.write(batch)
                return _ending(attempt, batch)
            case _:
                return _ending(attempt, batch)


@dataclass(slots=True)
class _Look:
    """What one attempt does. `reported` is the number of ended lines that the last report of progress had."""

    worker: BatchWorker
    client: redis.Redis
    attempt: Attempt
    reported: int

    def batch(self) -> Batch:
        """Return the batch as it is now; one whose window is over is stopped."""
        with self.attempt.database.connection() as connection:
            batch = progress.read_of_job(connection, self.attempt.job)
        unfinished = batch.status == "validating" or batch.ended_lines < batch.total_lines
        if batch.status in ("validating", "in_progress") and unfinished and batch.expires_at <= datetime.now(UTC):
            return self._stop("expired")
        return batch

    def _stop(self, ends_as: BatchEnd, *errors: Mapping[str, Any]) -> Batch:
        with self.attempt.database.transaction() as connection:
            batch = progress.lock(connection, self.attempt.job)
            progress.stop(connection, batch, ends_as, errors)
            return progress.read_of_job(connection, self.attempt.job)

    def _context(self, batch: Batch) -> BatchContext | None:
        """Return the context of the lines. A batch whose user has left the account is stopped."""
        context = read_context(self.worker, self.attempt.database, batch)
        if context is None:
            self._stop("failed", line_error("user_removed", "The user of the batch is no longer in the account."))
        return context

    def validate(self, batch: Batch) -> None:
        """Validate what is left of the input file."""
        if context := self._context(batch):
            validate(self.worker, self.attempt, batch, context)

    def go_on(self, batch: Batch) -> None:
        """End the lines whose jobs have ended, and begin others. Raises Released unless all lines have ended."""
        if (context := self._context(batch)) is None:
            return
        ended = begun = 0
        while count := end_lines(self.attempt, batch, context.models):
            ended += count
        batch = self.batch()
        while batch.status == "in_progress" and batch.begun_lines < batch.total_lines:
            self.attempt.check()
            count = begin_lines(self.attempt, batch, context)
            begun, batch = begun + count, self.batch()
            if not count:
                break
        self._report(batch)
        if batch.status == "in_progress" and batch.ended_lines == batch.total_lines:
            self._stop("completed")
        elif batch.status == "in_progress":
            advanced = bool(ended or begun)
            raise Released(
                "the lines of the batch run", delay=BUSY_DELAY if advanced else IDLE_DELAY, advanced=advanced
            )

    def _report(self, batch: Batch) -> None:
        """Report progress, at most once a percent of the lines: each report is an event, which later attempts read."""
        step = 1 if batch.ended_lines == batch.total_lines else max(1, batch.total_lines // 100)
        if batch.ended_lines - self.reported >= step:
            note = f"requests ended, {batch.failed_lines} of them with errors"
            self.attempt.report_progress(batch.ended_lines, batch.total_lines, note=note)
            self.reported = batch.ended_lines

    def stop_lines(self, batch: Batch) -> None:
        """Cancel the lines that run, and end those that have ended or not begun. Raises Released while some run."""
        self._cancel_running(batch)
        models = read_known_models(self.worker, self.attempt.database)
        ended = end_lines(self.attempt, batch, models)
        if batch.begun_lines < batch.total_lines:
            ended += end_unfinished(self.attempt, batch)
        if not ended:
            raise Released("the lines of the batch are stopping", delay=BUSY_DELAY)

    def _cancel_running(self, batch: Batch) -> None:
        running = cancel_running(self.attempt, batch)
        with suppress(redis.RedisError):  # the workers' next heartbeats find it
            journal.publish_cancellations(self.client, running)

    def write(self, batch: Batch) -> None:
        """Write the files of the results, if lines have begun, and delete the lines."""
        if batch.in_progress_at is None:
            delete_lines(self.attempt, batch)
        else:
            write_files(self.worker, self.attempt, batch)


def cancel_running(attempt: Attempt, batch: Batch) -> list[str]:
    """Cancel the jobs of a stopped batch's lines. Returns those that run."""
    running: list[str] = []
    while True:
        attempt.check()
        with attempt.database.transaction() as connection:
            job_ids = lines.uncancelled_jobs(connection, batch, CANCELLED)
            running += cancellation.cancel_all(connection, job_ids, batch.account_id).running
        if not job_ids:
            return running


def _ending(attempt: Attempt, batch: Batch) -> Ending:
    ends_as = batch.ends_as or "completed"
    counts = {"total": batch.total_lines, "completed": batch.completed_lines, "failed": batch.failed_lines}
    result = {"batch_id": batch.id, "status": ends_as, "request_counts": counts}
    ending = plain_ending(attempt, "completed", result=result)
    record = _record(batch.id, batch.account_id, ends_as, [])
    return Ending(ending.state, ending.events, ending.result, record=record)


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a batch whose job is cancelled with its account, fails or is dead. The lines are pruned later."""
    ending, job = plain_ending(attempt, state, error), attempt.job
    with attempt.database.connection() as connection:
        batch = read(connection, job.arguments["batch_id"], Access.account(job.account_id))
    if batch is not None and state != "cancelled":
        cancel_running(attempt, batch)
    errors = [line_error(error["code"], error["message"])] if error else []
    ends_as: BatchEnd = "cancelled" if state == "cancelled" else "failed"
    record = _record(job.arguments["batch_id"], job.account_id, ends_as, errors)
    return Ending(ending.state, ending.events, error=ending.error, record=record)


def _record(
    batch_id: str, account_id: str, ends_as: BatchEnd, errors: Sequence[Mapping[str, Any]]
) -> Callable[[Connection], None]:
    def record(connection: Connection) -> None:
        progress.end(connection, batch_id, account_id, ends_as=ends_as, errors=errors)
        events.record(connection, account_id, EVENTS[ends_as], {"id": batch_id}, key=batch_id)

    return record
