"""`POST /mcp`: check a message of an MCP client, and let the SDK's server respond to it."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST, PARSE_ERROR
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from models.access import mcp_requests
from models.platform.errors import InvalidRequest, NotAllowed
from models.platform.ids import new_id
from pipelines.requests.json_objects import parse_object
from web.api.job_results import cancel_job
from web.api.mcp.ask import sender_of
from web.api.mcp.server import SanghaServer
from web.api.request import Request
from web.http import bodies
from web.http.public_urls import base_url
from web.http.responses import json_response
from web.http.threads import run_in_thread

#: Bytes of a message.
MAX_BODY = 1024 * 1024


async def serve(request: Request) -> Response:
    """`POST /mcp`: serve one message of the Model Context Protocol, over Streamable HTTP.

    Tools run with the caller's rights. Without state: a session id only names the client in its cancellations.
    """
    check_origin(request)
    try:
        message = await bodies.off_loop(request.body, parse_object)
    except InvalidRequest as error:
        code = INVALID_REQUEST if request.body.lstrip().startswith(b"[") else PARSE_ERROR
        return _protocol_error(code, error.message)
    if message.get("method") == "initialize":
        request.add_headers({"mcp-session-id": new_id("mcps")})
    if message.get("method") == "notifications/cancelled":
        await run_in_thread(_cancel_request, request, message)
    return McpResponse(request)


def check_origin(request: Request) -> None:
    """Raise NotAllowed for a page of another origin that the settings do not name.

    A page can make its name resolve to this machine (DNS rebinding); `web.http.hosts` refuses such a name itself.
    """
    origin = request.headers.get("origin")
    if origin is None or {origin, "*"} & {*request.platform.settings.cors_origins}:
        return
    own = (request.headers.get("host"), urlsplit(base_url(request.platform.settings, request.headers)).netloc)
    if urlsplit(origin).netloc not in own:
        raise NotAllowed("The Origin header names a page that SANGHA_CORS_ORIGINS does not.", code="origin_refused")


def _protocol_error(code: int, message: str) -> Response:
    return json_response({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}, 400)


def _cancel_request(request: Request, message: dict[str, Any]) -> None:
    """Cancel the turn of the request that a notification names; one of another session or caller is not found."""
    parameters, sender = message.get("params"), sender_of(request)
    if sender is None or not isinstance(parameters, dict):
        return
    with suppress(redis.RedisError):
        job_id = mcp_requests.find(request.platform.redis, sender, parameters.get("requestId"))
        if job_id is not None:
            cancel_job(request, job_id)


class McpResponse(Response):
    """The response of the SDK's server to one message.

    The server and its manager live as long as the request: nothing of it is shared with others, and a disconnect ends
    all of it.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the message."""
        # The SDK compares headers with the message. Spaces around a value are no part of it (RFC 9110, 5.5).
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        body = iter([self._request.body])

        async def receive_body() -> Message:
            for content in body:
                return {"type": "http.request", "body": content, "more_body": False}
            return await receive()

        manager = StreamableHTTPSessionManager(SanghaServer(self._request), stateless=True)
        async with manager.run():
            await manager.handle_request({**scope, "headers": headers}, receive_body, send)
