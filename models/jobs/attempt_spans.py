"""The spans of attempts at jobs.

All attempts at a job are below the span that enqueued it. The id of an attempt's span is derived from the job and the
number of the attempt: so spans below it have their parent also if its worker is killed, and the process that gives the
job back exports the span from the row.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from models.jobs.jobs import Job
from models.platform import span_names, tracing
from models.platform.tracing import Span, SpanIdentity, Value

#: The type of the error of an attempt whose worker died.
WORKER_LOST = "worker_lost"

#: The outcomes of attempts that are errors.
FAILED = frozenset({"dead", "error", "failed", "retried"})


def attempt_span(job: Job) -> Span:
    """Return the span of a claimed attempt. It links to the span of the attempt before."""
    if not tracing.tracing_is_on():
        return tracing.NO_SPAN
    attributes: dict[str, Value] = attributes_of(job.id, job.kind, job.queue, job.attempt)
    if job.attempt == 1 and job.started_at is not None:
        attributes[span_names.JOB_QUEUE_SECONDS] = max(0.0, (job.started_at - job.run_at).total_seconds())
    identity = identity_of(job.id, job.attempt, job.traceparent)
    return tracing.span(span_names.attempt(job.kind), "consumer", attributes, identity)


def note_outcome(span: Span, outcome: str) -> None:
    """Set the outcome of an attempt; one that failed makes its span an error."""
    span.set(span_names.JOB_OUTCOME, outcome)
    if outcome in FAILED:
        span.fail(outcome)


def record_killed(rows: Iterable[Mapping[str, Any]]) -> None:
    """Export the spans of attempts whose workers died, from what `leases.GIVE_BACK` returns of their jobs."""
    if not tracing.tracing_is_on():
        return
    for row in rows:
        began: datetime = row["began_at"] or datetime.now(UTC)
        job_id, kind, attempt = row["id"], row["kind"], row["attempt"]
        tracing.record_span(
            span_names.attempt(kind),
            "consumer",
            attributes_of(job_id, kind, row["queue"], attempt) | {span_names.JOB_OUTCOME: "crashed"},
            identity_of(job_id, attempt, row["traceparent"]),
            (began.timestamp(), max(time.time(), began.timestamp())),
            WORKER_LOST,
        )


def identity_of(job_id: str, attempt: int, traceparent: str | None) -> SpanIdentity:
    """Return where the span of an attempt belongs. A job that was enqueued outside of any trace begins one."""
    linked_id = span_id(job_id, attempt - 1) if attempt > 1 else 0
    return SpanIdentity(traceparent, span_id(job_id, attempt), _number(job_id, 16), linked_id)


def span_id(job_id: str, attempt: int) -> int:
    """Return the id of the span of an attempt."""
    return _number(f"{job_id} {attempt}", 8)


def attributes_of(job_id: str, kind: str, queue: str, attempt: int) -> dict[str, Value]:
    """Return the attributes of an attempt."""
    return {
        span_names.MESSAGING_SYSTEM: "sangha",
        span_names.MESSAGING_OPERATION: "process",
        span_names.MESSAGING_DESTINATION: queue,
        span_names.MESSAGING_MESSAGE_ID: job_id,
        span_names.JOB_ID: job_id,
        span_names.JOB_KIND: kind,
        span_names.JOB_ATTEMPT: attempt,
    }


def _number(text: str, size: int) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:size])
