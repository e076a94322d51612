"""`POST /v1/responses/input_tokens`: how many tokens a turn's prompt has, without running it.

The engine lives in the inference pool, and only it counts exactly: its template, its tools, its vocabulary. So this is
a short job that stands in line before turns, and is gone once it is answered.
"""

import asyncio
from typing import Any, Literal

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest, Unavailable
from pipelines.chat.token_count import TokenCount, enqueue_count
from web.api.job_results import cancel_job, delete_ended_job
from web.api.request import Request
from web.api.turns.items import stored_items
from web.api.turns.requests import CountTokens, prompt_parameters, parse_thread
from web.http import bodies
from web.http.responses import json_response

#: Seconds to wait for a worker with a free hand.
TIMEOUT = 30.0


class InputTokens(TypedDict):
    """The tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


async def count_tokens(request: Request) -> Response:
    """`POST /v1/responses/input_tokens`."""
    body = bodies.parse(request.body, CountTokens)
    items = stored_items(body.input) if body.input is not None else []
    question = TokenCount(prompt_parameters(body, request.platform.settings), items, *parse_thread(body))
    job_id = request.new_id("job")
    limits = request.admission.limits
    await run_in_threadpool(enqueue_count, request.platform.database, request.caller, question, job_id, limits)
    request.platform.queue.nudge()
    try:
        async with asyncio.timeout(TIMEOUT):
            last = await _last_event(request, job_id)
    except TimeoutError:
        last = {}
        await run_in_threadpool(cancel_job, request, job_id)
    finally:
        await run_in_threadpool(delete_ended_job, request, job_id)
    count: InputTokens = {"object": "response.input_tokens", "input_tokens": _token_count(last)}
    return json_response(count)


async def _last_event(request: Request, job_id: str) -> dict[str, Any]:
    async for events in request.platform.tail.follow(job_id):
        if events[-1].ends:
            told: dict[str, Any] = orjson.loads(events[-1].data)
            return told
    return {}


def _token_count(last: dict[str, Any]) -> int:
    """The count in the last event of the job. Raises InvalidRequest where the engine can't read such a prompt."""
    if result := last.get("result"):
        tokens: int = result["input_tokens"]
        return tokens
    if last.get("type") == "sangha:job.failed":
        raise InvalidRequest(last["error"]["message"], param="input", code=last["error"]["code"])
    raise Unavailable("No worker had time to count.", retry_after=5)
