"""`POST /v1/responses/input_tokens`: count the tokens of a turn's prompt without running it.

Only the engine counts exactly, by its chat template and vocabulary. It runs in the inference pool, so that the count is
a short job, queued before turns and deleted after the response.
"""

import asyncio
from typing import Any, Literal

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest, Unavailable
from pipelines.chat.token_count import TokenCountRequest, enqueue_count
from web.api.job_results import cancel_job, delete_ended_job
from web.api.request import Request
from web.api.turns.conversion import convert
from web.api.turns.input_items import stored_items
from web.api.turns.request_body import read_body
from web.api.turns.turn_request import CountTokens, parse_thread, prompt_parameters
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Seconds to wait for the count.
TIMEOUT = 30.0


class InputTokens(TypedDict):
    """The number of tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


async def count(request: Request) -> Response:
    """`POST /v1/responses/input_tokens`: count the tokens of a response's prompt without creating the response."""
    body = await read_body(request, CountTokens)
    items = stored_items(body.input) if body.input is not None else []
    token_count = TokenCountRequest(await convert(request, prompt_parameters, body), items, *parse_thread(body))
    job_id = request.new_id("job")
    limits = request.admission.limits
    await run_in_thread(enqueue_count, request.platform.database, request.caller, token_count, job_id, limits)
    request.platform.queue.nudge(request.caller.account_id)
    try:
        async with asyncio.timeout(TIMEOUT):
            last = await _last_event(request, job_id)
    except TimeoutError:
        last = {}
        await run_in_thread(cancel_job, request, job_id)
    finally:
        await run_in_thread(delete_ended_job, request, job_id)
    result: InputTokens = {"object": "response.input_tokens", "input_tokens": _token_count(last)}
    return json_response(result)


async def _last_event(request: Request, job_id: str) -> dict[str, Any]:
    async for events in request.platform.tail.follow(job_id):
        if events[-1].ends:
            event: dict[str, Any] = orjson.loads(events[-1].data)
            return event
    return {}


def _token_count(last: dict[str, Any]) -> int:
    """Return the count from the job's last event. Raises InvalidRequest for a prompt that the engine rejects."""
    if result := last.get("result"):
        tokens: int = result["input_tokens"]
        return tokens
    if last.get("type") == "sangha:job.failed":
        raise InvalidRequest(last["error"]["message"], param="input", code=last["error"]["code"])
    raise Unavailable(f"No worker was free to count the tokens within {TIMEOUT:g} seconds. Retry later.", retry_after=5)
