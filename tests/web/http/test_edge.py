"""Given a request, when it has been answered, then nothing of it stays in memory for the garbage collector to find."""

import asyncio
import gc
import weakref

from starlette.responses import PlainTextResponse

from web.health.metrics import Metrics
from web.http.edge import Edge


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
        asyncio.run(Edge(PlainTextResponse("hello"), Metrics())(server.scope, server.receive, server.send))
        assert server.sent[0]["status"] == 200
        del server
        assert alive() is None
    finally:
        gc.enable()
