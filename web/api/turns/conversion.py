"""Convert the body of a request that may contain JSON Schemas, off the event loop.

A schema that this process has not seen is compiled by a child process, which takes up to half a second. One account has
one such request at a time checked, so that the schemas of others are next.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from pipelines.requests.serving import Serving
from web.api.request import Request
from web.api.turns.serving import serving_for
from web.http.threads import run_in_thread

Body = TypeVar("Body")
Converted = TypeVar("Converted")


async def convert(request: Request, convert_body: Callable[[Body, Serving], Converted], body: Body) -> Converted:
    """Return `convert_body(body, serving)`: at once for a body without schemas, else from a thread."""
    serving = await serving_for(request, getattr(body, "model", None))
    if not has_schemas(body):
        return convert_body(body, serving)
    async with request.platform.schema_checks.take(request.caller.account_id):
        return await run_in_thread(convert_body, body, serving)


def has_schemas(body: Any) -> bool:
    """Return whether a request has tools or a text format, under the name that either API gives it."""
    text_format = getattr(body, "response_format", None) or getattr(getattr(body, "text", None), "format", None)
    return bool(body.tools or text_format or getattr(body, "functions", None))
