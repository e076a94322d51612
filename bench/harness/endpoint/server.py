"""`python -m bench.harness.endpoint.server PORT CONTROL_PORT`: the endpoint, and a port that controls it.

PORT           POST /v1/chat/completions, GET /v1/models
CONTROL_PORT   GET /behaviour, PATCH /behaviour with the fields to change, GET /book?after=NUMBER

What the control port says is true at once: a request that is read later has the new behaviour. An answer that has begun
keeps its own, except that `refuse` closes all connections.
"""

import asyncio
import math
import secrets
import sys
import time
from collections.abc import Callable
from functools import partial

import orjson
import uvloop

from bench.harness.endpoint.answers import ScriptedAnswer, answer_to, parse_request
from bench.harness.endpoint.behaviour import Behaviour
from bench.harness.endpoint.book import BookedRequest
from bench.harness.endpoint.http import HttpConnection, HttpRequest, error_body

HOST, BACKLOG = "127.0.0.1", 1024

#: The models that are listed; any other one is answered, too.
MODELS = ("cloud",)

#: The event of the fault `garbage`.
GARBAGE = b'data: {"choices": [{"delta": \r\n\r\n'


class Endpoint:
    """The behaviour, the book and the connections. All runs on one event loop."""

    def __init__(self, port: int) -> None:
        self.behaviour = Behaviour()
        self.book: list[BookedRequest] = []
        self.connections: set[EndpointConnection] = set()
        self._port = port
        self._server: asyncio.Server | None = None

    async def change(self, behaviour: Behaviour) -> None:
        """Change the behaviour, and accept or refuse connections accordingly."""
        self.behaviour = behaviour
        if behaviour.fault == "refuse":
            await self.close()
        elif self._server is None:
            await self.open()

    async def open(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(partial(EndpointConnection, self), HOST, self._port, backlog=BACKLOG)

    async def close(self) -> None:
        """Refuse connections, and close all."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.transport.abort()

    @property
    def is_full(self) -> bool:
        """Whether as many answers are open as there may be."""
        limit = self.behaviour.limit
        return bool(limit) and sum(each.is_answering for each in self.connections) >= limit

    def take_fault(self) -> Behaviour:
        """Return the behaviour for a request, and count that its fault has affected it."""
        behaviour = self.behaviour
        if behaviour.fault != "none" and behaviour.times:
            left = behaviour.times - 1
            self.behaviour = behaviour.changed({"times": left}) if left else behaviour.healed()
        return behaviour


class EndpointConnection(HttpConnection):
    """One client of the endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._timer: asyncio.TimerHandle | None = None
        self._booked: BookedRequest | None = None

    @property
    def is_answering(self) -> bool:
        """Whether an answer has begun and not ended."""
        return self._booked is not None and self._booked.outcome == "open"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._endpoint.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the answer."""
        self._endpoint.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._end("disconnected")

    def handle(self, request: HttpRequest) -> None:
        """Answer a request for a completion, and list the models."""
        if request.method == "GET":
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "script"} for name in MODELS]
            self.respond(200, {"object": "list", "data": models})
            return
        try:
            parsed = parse_request(request.body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.respond(400, error_body(f"the request cannot be read: {error!r}"))
            return
        endpoint, full = self._endpoint, self._endpoint.is_full
        behaviour = endpoint.take_fault()
        mark = secrets.token_hex(2) if behaviour.nonce else ""
        answer = answer_to(parsed, behaviour, mark)
        number, text = len(endpoint.book) + 1, "\n".join(parsed.texts)
        self._booked = BookedRequest(
            number, time.time(), request.key, parsed.model, text, answer.first, mark, fault=behaviour.fault
        )
        endpoint.book.append(self._booked)
        if full:
            self._fail(429, 1.0)
        elif behaviour.fault == "status":
            self._fail(behaviour.status, behaviour.retry_after)
        else:
            self._begin(answer, behaviour, stream=parsed.stream)

    def _fail(self, status: int, retry_after: float) -> None:
        assert self._booked is not None
        self._booked.status = status
        header = f"Retry-After: {math.ceil(retry_after)}\r\n" if retry_after else ""
        self.respond(status, error_body(f"a scripted {status}", "server_error"), header)
        self._end("failed")

    def _begin(self, answer: ScriptedAnswer, behaviour: Behaviour, *, stream: bool) -> None:
        """Begin the answer, unless a fault comes before its head."""
        if behaviour.fault in ("hang", "drop") and not behaviour.after:
            self._break(behaviour)
        elif behaviour.fault == "slow":
            self._later(behaviour.delay, self._write_head, answer, behaviour.healed(), stream)
        else:
            self._write_head(answer, behaviour, stream)

    def _write_head(self, answer: ScriptedAnswer, behaviour: Behaviour, stream: bool) -> None:
        assert self._booked is not None
        self._booked.status = 200
        if not stream:
            self._booked.sent = len(answer.tokens)
            self.respond(200, answer.whole)
            self._end("answered")
        elif not answer.rate and behaviour.fault == "none":
            self._booked.sent = len(answer.tokens)
            self.transport.write(answer.begin + b"".join(answer.tokens) + answer.end)
            self._end("answered")
        else:
            self.transport.write(answer.begin)
            self._write_token(answer, behaviour, 0, asyncio.get_running_loop().time())

    def _write_token(self, answer: ScriptedAnswer, behaviour: Behaviour, number: int, began: float) -> None:
        """Write a token and schedule the next one; the first is due at once."""
        assert self._booked is not None
        if behaviour.fault in ("hang", "drop", "garbage") and number == behaviour.after:
            self._break(behaviour)
        elif number == len(answer.tokens):
            self.transport.write(answer.end)
            self._end("answered")
        else:
            self.transport.write(answer.tokens[number])
            self._booked.sent += 1
            due = began + (number + 1) / answer.rate if answer.rate else began
            delay = due - asyncio.get_running_loop().time()
            self._later(delay, self._write_token, answer, behaviour, number + 1, began)

    def _break(self, behaviour: Behaviour) -> None:
        """Cause the fault at this place: a hang lasts until the client closes the connection."""
        if behaviour.fault == "drop":
            self._end("failed")
            self.transport.abort()
        elif behaviour.fault == "garbage":
            self.transport.write(b"%x\r\n%b\r\n" % (len(GARBAGE), GARBAGE))
            self._end("failed")
            self.transport.close()

    def _later(self, delay: float, step: Callable[..., None], *arguments: object) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), step, *arguments)

    def _end(self, outcome: str) -> None:
        if self._booked is not None and self._booked.outcome == "open":
            self._booked.outcome, self._booked.ended_at = outcome, time.time()  # type: ignore[assignment]


class ControlConnection(HttpConnection):
    """One client of the control port."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: HttpRequest) -> None:
        """Read or change the behaviour, or read the book."""
        path, _, query = request.path.partition("?")
        if path == "/book":
            after = int(query.partition("=")[2] or 0)
            self.respond(200, [each.json() for each in self._endpoint.book[after:]])
        elif request.method == "PATCH":
            task = asyncio.get_running_loop().create_task(self._change(request.body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.respond(200, self._endpoint.behaviour.json())

    async def _change(self, body: bytes) -> None:
        try:
            await self._endpoint.change(self._endpoint.behaviour.changed(orjson.loads(body)))
        except ValueError as error:
            self.respond(400, error_body(str(error)))
        else:
            self.respond(200, self._endpoint.behaviour.json())


async def serve(port: int, control_port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until the process ends."""
    endpoint = Endpoint(port)
    await endpoint.open()
    loop = asyncio.get_running_loop()
    control = await loop.create_server(partial(ControlConnection, endpoint), HOST, control_port)
    ready()
    await control.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
