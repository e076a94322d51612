"""`POST /v1/responses/input_tokens`: count the tokens of a turn's prompt without running it.

Only the engine counts exactly, by its chat template and vocabulary. The tools of MCP servers are not counted.
"""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from pipelines.chat import token_count
from pipelines.chat.prompt_jobs import PromptRequest
from pipelines.requests.input_items import stored_items
from pipelines.requests.turn_request import CountTokens, parse_thread, prompt_parameters
from web.api.request import Request
from web.api.turns.conversion import convert
from web.api.turns.prompt_jobs import run_prompt_job
from web.api.turns.request_body import read_body
from web.http.responses import json_response


class InputTokens(TypedDict):
    """The number of tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


async def count(request: Request) -> Response:
    """`POST /v1/responses/input_tokens`: count the tokens of a response's prompt without creating the response."""
    body = await read_body(request, CountTokens)
    items = stored_items(body.input) if body.input is not None else []
    parameters = await convert(request, prompt_parameters, body)
    prompt = PromptRequest(parameters, items, *parse_thread(body))
    counted = await run_prompt_job(request, token_count.KIND, prompt)
    result: InputTokens = {"object": "response.input_tokens", "input_tokens": counted["input_tokens"]}
    return json_response(result)
