"""The requests of a job to an endpoint: which are equal, and which may have been sent before.

The fence stops no request. So an attempt after a crash, or after a failure in the middle of an answer, may send what an
earlier one has sent: it gets the same idempotency key, and says that it is a repeat.
"""

from typing import Protocol, runtime_checkable

from models.jobs.attempt_context import Attempt
from pipelines.chat.transcript import read_transcript
from pipelines.inference.engine import Engine


@runtime_checkable
class SendsRequests(Protocol):
    """An engine that asks another server."""

    def for_job(self, job_id: str, *, is_repeat: bool) -> Engine:
        """Return an engine that sends the requests of one job."""


def engine_of_attempt(engine: Engine, attempt: Attempt) -> Engine:
    """Return the engine for one attempt."""
    if not isinstance(engine, SendsRequests):
        return engine
    return engine.for_job(attempt.job.id, is_repeat=may_repeat(attempt))


def may_repeat(attempt: Attempt) -> bool:
    """Return whether an earlier attempt may have sent this one's request.

    One that failed or crashed may have; otherwise the journal has the beginning of the step that is to be generated.
    """
    if attempt.job.failures or attempt.job.attempt == 1:
        return attempt.job.failures > 0
    step = read_transcript(attempt.history, attempt.tokens).step
    return step.begun and step.usage is None
