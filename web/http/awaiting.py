"""Requests that wait for a job of theirs."""

import asyncio
from typing import Any

import orjson

from web.routing import Call


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
