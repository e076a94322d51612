"""The job `webhook.deliver`: send an event to an endpoint, and store the result.

A worker that dies between the answer and the commit leaves a pending job, which sends the event once more: a delivery
happens at least once, and receivers drop duplicates by the event's id. First attempts are in the queue `webhooks`. All
others, and those to an endpoint that fails, are in `webhooks_batch`, which has threads of its own: an endpoint that is
down delays only others that are down.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from models.accounts import members
from models.delivery import deliveries, endpoints
from models.delivery.deliveries import DeliveryState, Fence, Task
from models.delivery.endpoints import FAILING_DAYS, DisabledReason
from models.delivery.events import TEST
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.catalogue import batch_queue, is_batch
from models.jobs.jobs import Job, NewJob
from models.platform import span_names, tracing
from models.platform.database import Connection
from models.platform.errors import Moved, Released
from models.platform.metrics import DELIVERY_DURATION, observe
from models.platform.settings import Settings
from pipelines.accounts.email_jobs import EmailTemplate, email_job
from pipelines.agents import event_loop
from pipelines.agents.egress import policy_of
from pipelines.delivery import webhook_secrets
from pipelines.delivery.event_object import event_body
from pipelines.delivery.webhook_client import Answer, WebhookClient
from pipelines.delivery.webhook_retries import next_delay, parse_retry_after

USER_AGENT = "Sangha-Webhooks/1"

#: The status by which a receiver says that the endpoint does not exist any more.
GONE = 410

Record = Callable[[Connection], Sequence[NewJob] | None]


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """The connections to endpoints, apart for those that fail, and the settings with the key of the secrets."""

    settings: Settings
    client: WebhookClient
    batch_client: WebhookClient

    @classmethod
    def open(cls, settings: Settings) -> "WebhookSender":
        """Return the sender of a process."""
        policy = policy_of(settings)
        return cls(settings, WebhookClient(policy), WebhookClient(policy))


def run(sender: WebhookSender, attempt: Attempt) -> Ending:
    """Send the event once. Raises Moved for the next attempt, and the reason to stop."""
    job = attempt.job
    with attempt.database.connection() as connection:
        task = deliveries.read_task(connection, job.arguments["delivery_id"], job.arguments["account_id"])
    if task is None or not task.delivery.is_job_of(job.id):
        return plain_ending(attempt, "completed", result={"sent": False})
    if job.arguments.get(TEST):
        return _test(sender, attempt, task)
    if not task.endpoint.enabled:
        return _hold(attempt)
    if task.endpoint.failing_since is not None and not is_batch(job.queue):
        raise Moved("The endpoint fails.", queue=batch_queue(job.queue), quiet=True)
    answer = _post(sender, attempt, task)
    if answer.accepted:
        return _ending(attempt, partial(_record_success, job, task, answer), answer)
    if (reason := _reason_to_disable(task, answer)) is not None:
        return _ending(attempt, partial(_record_last_failure, job, task, answer, reason), answer)
    return _fail(attempt, task, answer)


def _hold(attempt: Attempt) -> Ending:
    """Have the delivery wait until its endpoint is enabled. Raises Released if it is by now."""
    with attempt.database.connection() as connection:
        held = deliveries.hold(connection, _fence(attempt.job))
    if not held:
        raise Released("The endpoint was enabled or deleted meanwhile.")
    return plain_ending(attempt, "completed", result={"sent": False})


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """Return the ending of a job that could not send its event: the delivery has failed, and can be replayed."""
    message = error["message"] if error else "The job was cancelled."
    failure = Answer(None, 0.0, error=message)
    record = partial(_store, _fence(attempt.job), "failed", failure)
    return replace(plain_ending(attempt, state, error), record=record)


def _post(sender: WebhookSender, attempt: Attempt, task: Task) -> Answer:
    secrets = webhook_secrets.valid_secrets(sender.settings, task.endpoint)
    body = event_body(task.event)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
        **webhook_secrets.signature_headers(secrets, task.event.id, int(time.time()), body),
    }
    client = sender.batch_client if is_batch(attempt.job.queue) else sender.client
    with tracing.span(span_names.DELIVER, "client") as span:
        headers |= tracing.trace_headers()
        try:
            answer = event_loop.run(lambda: client.post(task.endpoint.url, headers, body), attempt.should_stop)
        except event_loop.Stopped:
            attempt.check()
            raise
        span.set(span_names.HTTP_METHOD, "POST")
        span.set(span_names.HTTP_STATUS, answer.status_code)
        if not answer.accepted:
            span.fail(str(answer.status_code or "unanswered"))
    observe(DELIVERY_DURATION.labels(_outcome(answer)), answer.seconds)
    return answer


def _outcome(answer: Answer) -> str:
    """Return whether an endpoint has taken an event, rejected it, or not answered."""
    if answer.status_code is None:
        return "unanswered"
    return "accepted" if answer.accepted else "rejected"


def _reason_to_disable(task: Task, answer: Answer) -> DisabledReason | None:
    if answer.status_code == GONE:
        return "gone"
    since = task.endpoint.failing_since
    if since is not None and datetime.now(UTC) - since > timedelta(days=FAILING_DAYS):
        return "failing"
    return None


def _fail(attempt: Attempt, task: Task, answer: Answer) -> Ending:
    """Return the ending after the last attempt. Raises Moved for another one."""
    delay = next_delay(task.delivery.tries + 1, parse_retry_after(answer.headers))
    record = partial(_record_failure, attempt.job, task, answer, delay)
    if delay is None:
        return _ending(attempt, record, answer)
    queue = batch_queue(attempt.job.queue)
    raise Moved(f"The endpoint {task.endpoint.id} has failed.", queue=queue, delay=delay, record=record)


def _test(sender: WebhookSender, attempt: Attempt, task: Task) -> Ending:
    """Send a sample once, also to an endpoint that is disabled, which stays as it is."""
    answer = _post(sender, attempt, task)
    state: DeliveryState = "delivered" if answer.accepted else "failed"
    return _ending(attempt, partial(_store, _fence(attempt.job), state, answer), answer)


def _ending(attempt: Attempt, record: Record, answer: Answer) -> Ending:
    result = {
        "sent": answer.accepted,
        "status_code": answer.status_code,
        "seconds": round(answer.seconds, 3),
        "error": answer.error,
    }
    return replace(plain_ending(attempt, "completed", result=result), record=record)


def _fence(job: Job) -> Fence:
    return Fence(job.arguments["delivery_id"], job.arguments["account_id"], job.id)


# The endpoint is changed before the delivery, as its deletion locks them.


def _store(fence: Fence, state: DeliveryState, answer: Answer, connection: Connection) -> None:
    deliveries.store_attempt(connection, fence, state, _attempt_object(answer))


def _record_success(job: Job, task: Task, answer: Answer, connection: Connection) -> None:
    if task.endpoint.failing_since is not None:
        endpoints.note_success(connection, task.endpoint.id)
    _store(_fence(job), "delivered", answer, connection)


def _record_failure(job: Job, task: Task, answer: Answer, delay: float | None, connection: Connection) -> None:
    endpoints.note_failure(connection, task.endpoint.id)
    state: DeliveryState = "failed" if delay is None else "pending"
    deliveries.store_attempt(connection, _fence(job), state, _attempt_object(answer), delay=delay)


def _record_last_failure(
    job: Job, task: Task, answer: Answer, reason: DisabledReason, connection: Connection
) -> Sequence[NewJob]:
    """Disable the endpoint, hold the delivery, and return the e-mails to the account's admins."""
    endpoints.lock(connection, task.endpoint.id, task.endpoint.account_id)  # of several, only one disables it
    disabled = endpoints.disable(connection, task.endpoint.id, task.endpoint.account_id, reason)
    _store(_fence(job), "held", answer, connection)
    if disabled is None:  # by another delivery
        return []
    return [
        email_job(
            EmailTemplate.WEBHOOK_DISABLED,
            user_id=user_id,
            endpoint_id=task.endpoint.id,
            endpoint_account=task.endpoint.account_id,
        )
        for user_id in members.list_admins(connection, task.endpoint.account_id)
    ]


def _attempt_object(answer: Answer) -> dict[str, Any]:
    """Return an attempt as the row of the delivery keeps it."""
    return {
        "at": int(time.time()),
        "status_code": answer.status_code,
        "seconds": round(answer.seconds, 3),
        "body": answer.body,
        "error": answer.error,
    }
