"""Given a client that leaves before its answer, then the wait ends, and its job only where it was asked for that."""

import asyncio
import socket

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from bench.harness.waiting import wait_until
from tests.web.api_client import assert_error
from web.http.disconnects import DeferredResponse
from web.streams.sse import EventStream, OpenStreams

SCOPE = {"type": "http", "method": "POST"}


class Wire:
    """The other side of an ASGI response: `gone` is when it leaves."""

    def __init__(self):
        self.gone = asyncio.Event()
        self.sent = []

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.gone.set()


class Noted:
    """What is done when the client leaves."""

    def __init__(self):
        self.times = 0

    async def __call__(self):
        self.times += 1


def test_an_answer_that_comes_is_sent_and_nobody_has_left():
    async def scenario():
        wire, left = Wire(), Noted()

        async def answer():
            return Response("here", 201)

        await DeferredResponse(answer, left)(SCOPE, wire.receive, wire.send)
        assert [wire.sent[0]["status"], wire.sent[1]["body"], left.times] == [201, b"here", 0]

    asyncio.run(scenario())


def test_what_the_wait_raises_comes_out():
    async def scenario():
        wire, left = Wire(), Noted()

        async def answer():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await DeferredResponse(answer, left)(SCOPE, wire.receive, wire.send)
        assert (wire.sent, left.times) == ([], 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("asked", [True, False])
def test_a_client_that_leaves_ends_the_wait(asked):
    async def scenario():
        wire, left, ended = Wire(), Noted(), []

        async def answer():
            try:
                await asyncio.Future()
            finally:
                ended.append(True)

        wire.gone.set()
        with pytest.raises(ClientDisconnect):
            await DeferredResponse(answer, left if asked else None)(SCOPE, wire.receive, wire.send)
        assert (ended, wire.sent, left.times) == ([True], [], int(asked))

    asyncio.run(scenario())


async def _frames(*frames, then=None):
    for data in frames:
        yield data
    if then is not None:
        await then.wait()


@pytest.mark.parametrize("end", ["by itself", "client", "shutdown"])
def test_a_stream_tells_a_client_that_left_from_its_own_end_and_from_a_shutdown(end):
    async def scenario():
        wire, left, streams = Wire(), Noted(), OpenStreams()
        source = _frames(b"one", then=None if end == "by itself" else asyncio.Event())
        stream = EventStream(source, streams, on_disconnect=left, final_frame=b"cut")
        task = asyncio.create_task(stream(SCOPE, wire.receive, wire.send))
        while len(wire.sent) < 2:
            await asyncio.sleep(0)
        if end == "client":
            wire.gone.set()
        elif end == "shutdown":
            streams.close()
        await asyncio.wait_for(task, 5)
        assert left.times == (end == "client")
        assert (b"cut" in b"".join(message.get("body", b"") for message in wire.sent)) == (end != "by itself")

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("header", ["cancel", "finish", None])
def test_over_a_socket_only_the_header_cancels(user, path, stream, header):
    headers = {"authorization": f"Bearer {user.token}", **({"x-sangha-on-disconnect": header} if header else {})}
    body = {"input": "x"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "x"}]}
    asked = user.client.build_request(
        "POST", path, json={"model": "default", "stream": stream, **body}, headers=headers
    )
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.headers.items()), "", ""]
    with socket.create_connection((asked.url.host, asked.url.port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + asked.content)
        wait_until(user.jobs)

    def states():  # what was said in the turn is remembered all the same, by another job
        return [job["state"] for job in user.jobs() if job["kind"] == "turn.run"]

    if header == "cancel":  # and if it is not stored, forgotten
        wait_until(lambda: states() in (["cancelled"], []))
    else:
        assert states() == ["queued"]


def test_another_word_is_refused(user):
    answer = user.request("POST", "/v1/responses", json={"input": "x"}, headers={"x-sangha-on-disconnect": "explode"})

    assert_error(answer, 400, param="x-sangha-on-disconnect")
    assert user.jobs() == []
