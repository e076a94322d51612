"""Clients that disconnect early: deferred responses and streams are cancelled, jobs only on request."""

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


class AsgiClient:
    """The client of an ASGI response; it disconnects when `disconnected` is set."""

    def __init__(self):
        self.disconnected = asyncio.Event()
        self.sent = []

    async def receive(self):
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.disconnected.set()


class CallCounter:
    """A callback for disconnects that counts its calls."""

    def __init__(self):
        self.calls = 0

    async def __call__(self):
        self.calls += 1


def test_a_deferred_response_is_sent_without_calling_the_callback():
    async def scenario():
        client, callback = AsgiClient(), CallCounter()

        async def compute():
            return Response("here", 201)

        await DeferredResponse(compute, callback)(SCOPE, client.receive, client.send)
        assert [client.sent[0]["status"], client.sent[1]["body"], callback.calls] == [201, b"here", 0]

    asyncio.run(scenario())


def test_an_error_of_the_computation_is_raised():
    async def scenario():
        client, callback = AsgiClient(), CallCounter()

        async def compute():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await DeferredResponse(compute, callback)(SCOPE, client.receive, client.send)
        assert (client.sent, callback.calls) == ([], 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("with_callback", [True, False])
def test_a_disconnect_cancels_the_computation(with_callback):
    async def scenario():
        client, callback, ended = AsgiClient(), CallCounter(), []

        async def compute():
            try:
                await asyncio.Future()
            finally:
                ended.append(True)

        client.disconnected.set()
        with pytest.raises(ClientDisconnect):
            await DeferredResponse(compute, callback if with_callback else None)(SCOPE, client.receive, client.send)
        assert (ended, client.sent, callback.calls) == ([True], [], int(with_callback))

    asyncio.run(scenario())


async def frames(*items, then=None):
    for data in items:
        yield data
    if then is not None:
        await then.wait()


@pytest.mark.parametrize("end", ["by itself", "client", "shutdown"])
def test_a_stream_calls_the_callback_only_for_a_disconnect(end):
    async def scenario():
        client, callback, streams = AsgiClient(), CallCounter(), OpenStreams()
        source = frames(b"one", then=None if end == "by itself" else asyncio.Event())
        stream = EventStream(source, streams, on_disconnect=callback, final_frame=b"cut")
        task = asyncio.create_task(stream(SCOPE, client.receive, client.send))
        while len(client.sent) < 2:
            await asyncio.sleep(0)
        if end == "client":
            client.disconnected.set()
        elif end == "shutdown":
            streams.close()
        await asyncio.wait_for(task, 5)
        assert callback.calls == (end == "client")
        assert (b"cut" in b"".join(message.get("body", b"") for message in client.sent)) == (end != "by itself")

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("header", ["cancel", "finish", None])
def test_a_dropped_connection_cancels_the_job_only_with_the_header(user, path, stream, header):
    headers = {"authorization": f"Bearer {user.token}", **({"x-sangha-on-disconnect": header} if header else {})}
    body = {"input": "x"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "x"}]}
    request = user.client.build_request(
        "POST", path, json={"model": "default", "stream": stream, **body}, headers=headers
    )
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
    with socket.create_connection((request.url.host, request.url.port)) as connection:
        connection.sendall("\r\n".join(lines).encode() + request.content)
        wait_until(user.jobs)

    def states():  # without the job that remembers the turn's messages
        return [job["state"] for job in user.jobs() if job["kind"] == "turn.run"]

    if header == "cancel":  # a response that is not stored is deleted
        wait_until(lambda: states() in (["cancelled"], []))
    else:
        assert states() == ["queued"]


def test_an_unknown_value_of_the_header_is_rejected(user):
    response = user.request("POST", "/v1/responses", json={"input": "x"}, headers={"x-sangha-on-disconnect": "explode"})

    assert_error(response, 400, param="x-sangha-on-disconnect")
    assert user.jobs() == []
