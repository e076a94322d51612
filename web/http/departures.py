"""Clients that leave before they have their answer: what becomes of the job that they waited for.

By default it is finished, for whoever reads it later. With `X-Sangha-On-Disconnect: cancel` it is cancelled.
"""

from starlette.concurrency import run_in_threadpool

from models.platform.errors import InvalidRequest
from pipelines.chat.cancellation import cancel_jobs
from web.routing import Call
from web.streams.sse import OnDeparture

HEADER = "x-sangha-on-disconnect"


def on_departure(call: Call, job_id: str) -> OnDeparture | None:
    """What to do when the client of a job leaves early; None is nothing.

    Raises InvalidRequest for a header that says neither `cancel` nor `finish`, so call it before the job begins.
    """
    given = call.headers.get(HEADER, "finish").strip().lower()
    if given not in ("cancel", "finish"):
        raise InvalidRequest(f"'{HEADER}' should be 'cancel' or 'finish'.", param=HEADER)
    return (lambda: run_in_threadpool(cancel_job, call, job_id)) if given == "cancel" else None


def job_headers(job_id: str, response_id: str | None = None) -> dict[str, str]:
    """What an answer's headers tell of the job behind it, so that its client can follow or cancel it."""
    named = {"x-sangha-job-id": job_id}
    return named if response_id is None else {**named, "x-sangha-response-id": response_id}


def cancel_job(call: Call, job_id: str) -> None:
    """Cancel a job of the caller's account with all that it has started, and tell whoever must know."""
    with call.platform.database.transaction() as connection:
        done = cancel_jobs(connection, [job_id], call.caller.account_id)
    call.platform.queue.announce_cancellation(done)
