"""Given a request, when it is answered, or can not be any more, then its client is told, and nothing of it stays."""

import asyncio
import gc
import weakref

import orjson
import pytest
from starlette.responses import PlainTextResponse

from web.http.metrics import Metrics
from web.http.middleware import RequestMiddleware


class Server:
    """What keeps the scope as long as it can be sent to, as uvicorn does."""

    def __init__(self):
        self.scope = {"type": "http", "method": "GET", "http_version": "1.1", "headers": [(b"host", b"sangha")]}
        self.sent = []

    async def send(self, message):
        self.sent.append(message)

    async def receive(self):
        return {"type": "http.request"}


def test_an_answered_request_goes_by_itself():
    server = Server()
    alive = weakref.ref(server)
    gc.disable()
    try:
        asyncio.run(RequestMiddleware(PlainTextResponse("hello"), Metrics())(server.scope, server.receive, server.send))
        assert server.sent[0]["status"] == 200
        del server
        assert alive() is None
    finally:
        gc.enable()


def test_a_request_that_still_waits_when_the_process_leaves_is_to_be_asked_again():
    server = Server()

    async def wait(scope, receive, send):
        await asyncio.Event().wait()

    async def leave():
        task = asyncio.create_task(RequestMiddleware(wait, Metrics())(server.scope, server.receive, server.send))
        await asyncio.sleep(0)
        task.cancel("timeout graceful shutdown exceeded")
        await task

    asyncio.run(leave())

    begun, body = server.sent
    assert begun["status"] == 503
    assert dict(begun["headers"])[b"retry-after"] == b"1"
    assert orjson.loads(body["body"])["error"]["code"] == "service_unavailable"


def test_an_answer_that_has_begun_is_not_begun_again():
    server = Server()

    async def begin(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def leave():
        task = asyncio.create_task(RequestMiddleware(begin, Metrics())(server.scope, server.receive, server.send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())

    assert [message["status"] for message in server.sent] == [200]
