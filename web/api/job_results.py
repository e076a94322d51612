"""Wait for the job behind a request, take its result once, and delete or cancel it when no request will read it."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from models.jobs import job_deletion
from models.platform.database import Connection
from pipelines.chat.cancellation import cancel_jobs
from web.api.request import Request
from web.http.threads import run_in_thread

Result = TypeVar("Result")

#: Selects and deletes the result of a completed job, by job id and account id; None when it was deleted before.
TakeResult = Callable[[Connection, str, str], Result | None]


def job_headers(job_id: str, response_id: str | None = None) -> dict[str, str]:
    """Return the response headers that name the job behind a response, so that a client can follow or cancel it."""
    headers = {"x-sangha-job-id": job_id}
    return headers if response_id is None else {**headers, "x-sangha-response-id": response_id}


async def last_event(request: Request, job_id: str, timeout: float) -> dict[str, Any]:
    """Wait for the last event of a job's journal.

    Returns an empty dict when no event arrives for `timeout` seconds, or when the web process shuts down.
    """
    batches = request.platform.tail.follow(job_id)
    try:
        while True:
            async with asyncio.timeout(timeout):
                events = await anext(batches)
            if events[-1].ends:
                last: dict[str, Any] = orjson.loads(events[-1].data)
                return last
    except (TimeoutError, StopAsyncIteration):
        return {}
    finally:
        await batches.aclose()


async def take_result(
    request: Request,
    job_id: str,
    timeout: float,
    take: TakeResult[Result],
    to_error: Callable[[dict[str, Any]], Exception],
) -> Result | None:
    """Wait for a job and take its result, which is deleted; None when another request has taken it.

    Raises what `to_error` makes of the last event of a job that did not complete. After `timeout` seconds without an
    event that event is an empty dict.
    """
    last = await last_event(request, job_id, timeout)
    if last.get("type") == "sangha:job.completed":
        return await run_in_thread(_take, request, job_id, take)
    if last.get("type") != "sangha:job.dead":  # dead jobs stay for operators to inspect
        await abandon_job(request, job_id)
    raise to_error(last)


async def abandon_job(request: Request, job_id: str) -> None:
    """Cancel a job whose result no request will read, and delete it if it has ended."""
    await run_in_thread(_cancel_and_delete, request, job_id)


def cancel_job(request: Request, job_id: str) -> None:
    """Cancel a job of the caller's account with all its descendants, and notify their workers."""
    with request.platform.database.transaction() as connection:
        cancelled = cancel_jobs(connection, [job_id], request.caller.account_id)
    request.platform.queue.announce_cancellation(cancelled, request.caller.account_id)


def delete_ended_job(request: Request, job_id: str) -> None:
    """Delete a job of the caller's account with its journal, if it has ended."""
    with request.platform.database.connection() as connection:
        if job_deletion.delete_ended(connection, job_id, request.caller.account_id):
            request.platform.queue.forget_journal(job_id)


def _take(request: Request, job_id: str, take: TakeResult[Result]) -> Result | None:
    with request.platform.database.connection() as connection:
        result = take(connection, job_id, request.caller.account_id)
    request.platform.queue.forget_journal(job_id)
    return result


def _cancel_and_delete(request: Request, job_id: str) -> None:
    cancel_job(request, job_id)
    delete_ended_job(request, job_id)
