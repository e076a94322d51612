"""The HTTP transport of an MCP connection: guarded, and it notes how far a tool's call has come."""

from typing import Any

import httpx2
import orjson

from pipelines.agents.bounded_stream import ByteBudget, ResponseTooLarge
from pipelines.agents.egress import EgressPolicy, EgressRefused, GuardedTransport, Resolver, resolve

#: Errors before any byte of a request has been sent.
NOT_SENT = (EgressRefused, httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class McpTransport(GuardedTransport):
    """Sends the requests of one connection.

    fault   the first error of a request; the SDK hides most of them
    status  the status of the last response that was an error
    called  whether a call of a tool may have reached the server
    """

    def __init__(self, policy: EgressPolicy, budget: ByteBudget, resolver: Resolver = resolve) -> None:
        super().__init__(policy, budget, resolver)
        self.fault: Exception | None = None
        self.status: int | None = None
        self.called = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and note its failure."""
        call = await _is_tool_call(request)
        try:
            response = await super().handle_async_request(request)
        except NOT_SENT as error:
            self._note(request, error)
            raise
        except BaseException as error:
            self.called |= call
            self._note(request, error)
            raise
        self.called |= call
        self.status = response.status_code if response.status_code >= 400 and request.method == "POST" else self.status
        return response

    def body_error(self, request: httpx2.Request, error: Exception) -> Exception:
        """Note the error of a response's body."""
        translated = super().body_error(request, error)
        self._note(request, translated)
        return translated

    def _note(self, request: httpx2.Request, error: BaseException) -> None:
        """Keep the first error of a request that has an answer. The stream that a server may offer beside has none."""
        expected = request.method == "POST" or isinstance(error, ResponseTooLarge)
        if expected and isinstance(error, Exception) and self.fault is None:
            self.fault = error


async def _is_tool_call(request: httpx2.Request) -> bool:
    if request.method != "POST":
        return False
    try:
        message: Any = orjson.loads(await request.aread())
    except orjson.JSONDecodeError:
        return False
    return isinstance(message, dict) and message.get("method") == "tools/call"
