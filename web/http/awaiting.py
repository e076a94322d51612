"""Requests that wait for a job of theirs, and leave nothing of it behind that nobody would read."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from starlette.concurrency import run_in_threadpool

from models.jobs import jobs
from models.platform.database import Connection
from web.http.departures import cancel_job
from web.routing import Call

Result = TypeVar("Result")

#: Takes the result of a completed job, by its id and account, out of the tables; None where there is none any more.
Take = Callable[[Connection, str, str], Result | None]


async def last_event(call: Call, job_id: str, patience: float) -> dict[str, Any]:
    """What the job's journal ends with; nothing when no worker says a word for so long, or the process leaves."""
    told = call.platform.tail.follow(job_id)
    try:
        while True:
            async with asyncio.timeout(patience):
                events = await anext(told)
            if events[-1].ends:
                last: dict[str, Any] = orjson.loads(events[-1].data)
                return last
    except (TimeoutError, StopAsyncIteration):
        return {}
    finally:
        await told.aclose()


async def read_once(
    call: Call, job_id: str, patience: float, take: Take[Result], refusal: Callable[[dict[str, Any]], Exception]
) -> Result | None:
    """The result of a job, which is gone from here on; None where somebody else has taken it.

    Raises what `refusal` makes of the last event of a job that has not completed, or after so many seconds without a
    word of an empty one.
    """
    last = await last_event(call, job_id, patience)
    if last.get("type") == "sangha.job.completed":
        return await run_in_threadpool(_taken, call, job_id, take)
    if last.get("type") != "sangha.job.dead":  # the dead are for operators to look at
        await give_up(call, job_id)
    raise refusal(last)


async def give_up(call: Call, job_id: str) -> None:
    """Stop a job that nobody waits for any more, and leave nothing of it behind that has ended."""
    await run_in_threadpool(_cancelled, call, job_id)


def forget_ended(call: Call, job_id: str) -> None:
    """Delete a job of the caller's account that has ended, with its journal; any other stays."""
    with call.platform.database.connection() as connection:
        if jobs.delete_ended(connection, job_id, call.caller.account_id):
            call.platform.queue.forget_journal(job_id)


def _taken(call: Call, job_id: str, take: Take[Result]) -> Result | None:
    with call.platform.database.connection() as connection:
        result = take(connection, job_id, call.caller.account_id)
    call.platform.queue.forget_journal(job_id)
    return result


def _cancelled(call: Call, job_id: str) -> None:
    cancel_job(call, job_id)
    forget_ended(call, job_id)
