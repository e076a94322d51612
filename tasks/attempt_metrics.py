"""Metrics of attempts and turns, counted by the worker that runs them."""

from datetime import UTC, datetime

from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.platform import metrics
from models.platform.metrics import model_label, observe

#: The kind of job that is a turn.
TURN = "turn.run"


def observe_claim(job: Job) -> None:
    """Count how long a job was due before this claim. Only the first claim has its time in the row."""
    claimed_at = job.started_at if job.attempt == 1 and job.started_at else datetime.now(UTC)
    seconds = (claimed_at - job.run_at).total_seconds()
    observe(metrics.JOB_QUEUE_WAIT.labels(job.queue, job.kind), max(0.0, seconds))


def observe_attempt(job: Job, outcome: str, seconds: float) -> None:
    """Count an attempt that is over."""
    observe(metrics.JOB_ATTEMPT_DURATION.labels(job.kind, outcome), seconds)


def observe_end(attempt: Attempt, ending: Ending) -> None:
    """Count a job that an attempt has ended, and the times of a turn."""
    job = attempt.job
    metrics.JOBS_ENDED.labels(job.kind, ending.state).inc()
    if job.kind != TURN:
        return
    model = model_label(attempt.model)
    seconds = (datetime.now(UTC) - job.created_at).total_seconds()
    observe(metrics.TURN_DURATION.labels(model, ending.state), max(0.0, seconds))
    pace = attempt.journal.pace
    if pace.first_token_seconds is not None:
        observe(metrics.TIME_TO_FIRST_TOKEN.labels(model), pace.first_token_seconds)
    if pace.tokens_per_second:
        observe(metrics.TIME_PER_OUTPUT_TOKEN.labels(model), 1 / pace.tokens_per_second)
