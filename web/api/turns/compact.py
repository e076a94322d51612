"""`POST /v1/responses/compact`: compact a conversation that the client keeps itself."""

import time
from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest
from pipelines.chat import compact_context
from pipelines.chat.prompt_jobs import PromptRequest
from pipelines.chat.response_types import ItemObject, ResponseUsage
from pipelines.requests.content_types import Id
from pipelines.requests.hints import CacheOptions, CacheRetention, ServiceTier
from pipelines.requests.input_items import InputItems, stored_items
from pipelines.requests.turn_request import ClientLabel
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.api.turns.prompt_jobs import run_prompt_job
from web.api.turns.request_body import read_body
from web.api.turns.serving import serving_for
from web.api.turns.started_turn import require_new_workers
from web.http.responses import json_response


class CompactContext(RequestBody):
    """The body of `POST /v1/responses/compact`. `instructions` belong to requests and are not compacted."""

    model: str = Field(max_length=256)
    input: InputItems | None = None
    previous_response_id: Id | None = None
    # Accepted without effect.
    instructions: str | None = None
    prompt_cache_key: ClientLabel | None = None
    prompt_cache_retention: CacheRetention = None
    prompt_cache_options: CacheOptions = None
    service_tier: ServiceTier = None


class CompactedResponse(TypedDict):
    """A compacted conversation: send `output` as the first items of an input, in place of the compacted items."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[ItemObject]
    usage: ResponseUsage


async def compact(request: Request) -> Response:
    """`POST /v1/responses/compact`: compact a conversation to its latest user messages and quotes of the rest."""
    body = await read_body(request, CompactContext)
    model = (await serving_for(request, body.model)).resolve(body.model)
    if body.input is None and body.previous_response_id is None:
        raise InvalidRequest("Missing required parameter: 'input' or 'previous_response_id'.", param="input")
    require_new_workers(request)
    items = [] if body.input is None else stored_items(body.input)
    prompt = PromptRequest({"model": model}, items, previous_id=body.previous_response_id)
    result = await run_prompt_job(request, compact_context.KIND, prompt)
    compacted: CompactedResponse = {
        "id": request.new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": result["output"],
        "usage": result["usage"],
    }
    return json_response(compacted)
