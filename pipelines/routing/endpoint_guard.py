"""Ask an endpoint only while its circuit breaker allows that, report the results, and return turns when it fails."""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from models.jobs.attempt_context import Attempt, Outcome
from models.jobs.catalogue import batch_queue, is_batch
from models.jobs.jobs import Job
from models.jobs.route_costs import ROUTE
from models.platform.errors import JobError, Moved, PermanentFailure, Released, Unavailable
from models.serving.alternatives import other_endpoint
from models.serving.endpoint_results import Admission, EndpointResults
from models.serving.moves import MAX_MOVES, ReturnReason
from models.serving.queues import endpoint_queue
from pipelines.chat.job_model import requested_model
from pipelines.inference.engine import (
    PLAIN_TEXT,
    ContinuesSome,
    Engine,
    EngineError,
    EngineOutput,
    Finish,
    Message,
    OutputFormat,
)
from pipelines.routing.returned_turns import home_of, returned

log = logging.getLogger(__name__)

#: Failures that a job's request causes.
CALLER_KINDS = frozenset({"bad_request", "content_filter"})

#: Seconds for which interactive jobs wait longer than background jobs, one of which should probe the endpoint first.
PROBES_LATER = 1.0

#: Seconds until the next attempt of a job without a home, where a 429 does not say for how long.
SATURATED_DELAY = 5.0


def run_guarded(
    results: EndpointResults,
    engine: Engine,
    attempt: Attempt,
    run: Callable[[Engine], Outcome],
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a pipeline with an endpoint's engine.

    check  raises an error if the endpoint may not have the prompt; called just before it is sent

    Raises Moved where the job has a home and the endpoint cannot be asked or fails, Released where it has none and the
    endpoint cannot be asked, and what the pipeline raises.
    """
    job = attempt.job
    admission = results.admit(engine.endpoint, job.id)
    if not admission.is_allowed:
        raise elsewhere(attempt, engine, admission.reason) or refusal(job, engine.endpoint, admission)
    guarded = GuardedEngine(engine, results, job.id, is_probe=admission.is_probe, check=check)
    try:
        return run(guarded)
    except (EngineError, PermanentFailure) as error:
        if (moved := _after_error(attempt, guarded, error)) is not None:
            raise moved from error
        raise
    finally:
        guarded.withdraw_unused_probe()


def unserved(job: Job, error: PermanentFailure) -> JobError:
    """Return how a job goes on whose endpoint is not served with its model any more: at home, or not at all."""
    return returned(job, "endpoint_failed", str(error), stays=True) if home_of(job) else error


def refusal(job: Job, endpoint: str, admission: Admission) -> Released:
    """Return how a job goes on that may not ask its endpoint now: at home, or later."""
    message = f"the endpoint {endpoint} cannot be asked: {admission.reason}"
    if home_of(job):
        return returned(job, admission.reason, message)
    return Released(message, delay=admission.retry_after + (0 if is_batch(job.queue) else PROBES_LATER))


def elsewhere(attempt: Attempt, engine: Engine, reason: ReturnReason) -> Moved | None:
    """Return the move of a job whose request names no endpoint to another one with its model, if there is one."""
    job, route = attempt.job, attempt.job.arguments.get(ROUTE) or {}
    if home_of(job) or route.get("moves", 0) >= MAX_MOVES or requested_model(attempt) != engine.name:
        return None
    with attempt.database.connection() as connection:
        other = other_endpoint(connection, engine.endpoint, engine.name)
    if other is None:
        return None
    at = datetime.now(UTC).isoformat()
    changed = {"endpoint": other, "model": engine.name, "reason": reason, "at": at, "moves": route.get("moves", 0) + 1}
    queue = batch_queue(endpoint_queue(other)) if is_batch(job.queue) else endpoint_queue(other)
    return Moved(f"the endpoint {engine.endpoint} cannot be asked: {reason}", queue=queue, route={**route, **changed})


def _after_error(attempt: Attempt, guarded: "GuardedEngine", error: EngineError | PermanentFailure) -> JobError | None:
    """Return how a job goes on after an error of its endpoint; None: as after any other error."""
    job = attempt.job
    is_of_endpoint = guarded.error is error
    does_not_fit = isinstance(error, PermanentFailure) and error.code == "context_length_exceeded"
    if home_of(job) and (is_of_endpoint or does_not_fit):
        kind = failure_kind(error)
        return returned(
            job,
            "endpoint_saturated" if kind == "rate_limited" else "endpoint_failed",
            str(error),
            stays=kind in CALLER_KINDS,
            input_tokens=guarded.input_tokens,
            output_tokens=guarded.output_tokens,
        )
    reason: ReturnReason = "endpoint_saturated" if failure_kind(error) == "rate_limited" else "endpoint_failed"
    if is_of_endpoint and failure_kind(error) not in CALLER_KINDS and (moved := elsewhere(attempt, guarded, reason)):
        return moved
    if is_of_endpoint and failure_kind(error) == "rate_limited":
        return Released(str(error), delay=retry_after(error) or SATURATED_DELAY)
    return None


def failure_kind(error: Exception) -> str:
    """Return what a request failed with, as breakers count it."""
    return str(getattr(error, "kind", "bad_request" if isinstance(error, PermanentFailure) else "overloaded"))


def retry_after(error: Exception) -> float | None:
    """Return the seconds for which the endpoint wants to be left alone, if it has said so."""
    seconds: float | None = getattr(error, "retry_after", None)
    return seconds


class GuardedEngine:
    """An endpoint's engine that reports each answer to the circuit breaker. See Engine.

    error                        the failure of its last answer
    input_tokens, output_tokens  that the endpoint has read and generated: the operator pays for them
    """

    def __init__(
        self,
        engine: Engine,
        results: EndpointResults,
        job_id: str,
        *,
        is_probe: bool,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.endpoint, self.slots, self.context = engine.name, engine.endpoint, engine.slots, engine.context
        self.reasons, self.continues, self.counts_exactly = engine.reasons, engine.continues, engine.counts_exactly
        self.error: Exception | None = None
        self.input_tokens = self.output_tokens = 0
        self._engine = engine
        self._results = results
        self._job_id = job_id
        self._check = check
        self._is_probe = is_probe

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine."""
        return self._engine.count(prompt, output_format)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine."""
        return self._engine.min_tokens(prompt, output_format)

    def can_continue(self, output_format: OutputFormat, text: str, reasoning: str) -> bool:
        """See ContinuesSome."""
        if isinstance(self._engine, ContinuesSome):
            return self._engine.can_continue(output_format, text, reasoning)
        return self.continues

    def generate(self, prompt: Sequence[Message], **options: Any) -> Iterator[EngineOutput]:
        """See Engine. An answer that is cancelled says nothing about the endpoint."""
        finish: EngineOutput | None = None
        self._check()
        try:
            for output in self._engine.generate(prompt, **options):
                finish = output
                self.output_tokens += getattr(output, "count", 0)
                yield output
        except (EngineError, PermanentFailure) as error:
            self.error = error
            if getattr(error, "accepted", True):
                self.input_tokens += self._engine.count(prompt, options.get("output_format", PLAIN_TEXT))
            self._report_failure(error)
            raise
        if isinstance(finish, Finish):
            self.input_tokens += finish.prompt_tokens
            if finish.reason != "cancelled":
                self._report_success()

    def close(self) -> None:
        """See Engine."""
        self._engine.close()

    def withdraw_unused_probe(self) -> None:
        """Let another job probe, if this one should and has not come to a result."""
        if self._is_probe:
            self._try(lambda: self._results.withdraw(self.endpoint, self._job_id))

    def _report_success(self) -> None:
        self._try(lambda: self._results.succeeded(self.endpoint, self._job_id, is_probe=self._is_probe))
        self._is_probe = False

    def _report_failure(self, error: Exception) -> None:
        kind, seconds = failure_kind(error), retry_after(error)
        self._try(lambda: self._results.failed(self.endpoint, self._job_id, kind, retry_after=seconds))
        self._is_probe = False

    def _try(self, report: Callable[[], object]) -> None:
        """Report; without the database the breaker stays as it is."""
        try:
            report()
        except Unavailable as error:
            log.warning("Cannot report a result of the endpoint %s: %s", self.endpoint, error)
