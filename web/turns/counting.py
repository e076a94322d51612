"""`POST /v1/responses/input_tokens`: how many tokens a turn's prompt has, without running it.

The engine lives in the inference pool, and only it counts exactly: its template, its tools, its vocabulary. So this is
a short job that stands in line before turns, and is gone once it is answered.
"""

import asyncio
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from models.platform.errors import InvalidRequest, Unavailable
from pipelines.chat.count import Question, ask
from web.http import bodies
from web.http.answers import json_answer
from web.http.awaiting import forget_ended
from web.http.departures import cancel_job
from web.routing import Call
from web.turns.items import stored
from web.turns.requests import CountTokens, common, place_of

#: Seconds to wait for a worker with a free hand.
PATIENCE = 30.0


async def count(call: Call) -> Response:
    """`POST /v1/responses/input_tokens`."""
    body = bodies.parse(call.body, CountTokens)
    items = stored(body.input) if body.input is not None else []
    question = Question(common(body, call.platform.settings), items, *place_of(body))
    job_id = call.new_id("job")
    limits = call.admission.limits
    await run_in_threadpool(ask, call.platform.database, call.caller, question, job_id, limits)
    call.platform.queue.nudge()
    try:
        async with asyncio.timeout(PATIENCE):
            last = await _last_event(call, job_id)
    except TimeoutError:
        last = {}
        await run_in_threadpool(cancel_job, call, job_id)
    finally:
        await run_in_threadpool(forget_ended, call, job_id)
    return json_answer({"object": "response.input_tokens", "input_tokens": _told(last)})


async def _last_event(call: Call, job_id: str) -> dict[str, Any]:
    async for events in call.platform.tail.follow(job_id):
        if events[-1].ends:
            told: dict[str, Any] = orjson.loads(events[-1].data)
            return told
    return {}


def _told(last: dict[str, Any]) -> int:
    """The count in the last event of the job. Raises InvalidRequest where the engine can't read such a prompt."""
    if result := last.get("result"):
        tokens: int = result["input_tokens"]
        return tokens
    if last.get("type") == "sangha.job.failed":
        raise InvalidRequest(last["error"]["message"], param="input", code=last["error"]["code"])
    raise Unavailable("No worker had time to count.", retry_after=5)
