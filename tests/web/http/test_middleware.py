"""The outermost ASGI layer: memory of finished requests, and requests that are cancelled by a shutdown."""

import asyncio
import gc
import weakref

import orjson
import pytest
from starlette.responses import PlainTextResponse

from web.http.middleware import RequestMiddleware


class Server:
    """Keeps the scope of its request, as uvicorn does."""

    def __init__(self):
        self.scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [(b"host", b"sangha")]}
        self.sent = []

    async def send(self, message):
        self.sent.append(message)

    async def receive(self):
        return {"type": "http.request"}


def test_a_finished_request_is_freed_without_the_garbage_collector():
    server = Server()
    reference = weakref.ref(server)
    gc.disable()
    try:
        asyncio.run(RequestMiddleware(PlainTextResponse("hello"))(server.scope, server.receive, server.send))
        assert server.sent[0]["status"] == 200
        del server
        assert reference() is None
    finally:
        gc.enable()


def test_a_request_that_is_cancelled_by_a_shutdown_is_a_retryable_503():
    server = Server()

    async def wait(scope, receive, send):
        await asyncio.Event().wait()

    async def shut_down():
        task = asyncio.create_task(RequestMiddleware(wait)(server.scope, server.receive, server.send))
        await asyncio.sleep(0)
        task.cancel("timeout graceful shutdown exceeded")
        await task

    asyncio.run(shut_down())

    head, body = server.sent
    assert head["status"] == 503
    assert dict(head["headers"])[b"retry-after"] == b"1"
    assert orjson.loads(body["body"])["error"]["code"] == "service_unavailable"


def test_a_response_that_has_begun_is_not_replaced_at_shutdown():
    server = Server()

    async def start_response(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def shut_down():
        task = asyncio.create_task(RequestMiddleware(start_response)(server.scope, server.receive, server.send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(shut_down())

    assert [message["status"] for message in server.sent] == [200]
