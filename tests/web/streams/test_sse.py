"""Given a source of frames, when it is streamed, then the client gets all of it, and each end closes the source."""

import asyncio
import contextlib
import time

import pytest
from openai._streaming import SSEDecoder

from web.access.rights import Rights
from web.api.routing import Route
from web.app import build
from web.streams import sse
from web.streams.sse import EventStream, OpenStreams, frame

SCOPE = {"type": "http", "method": "GET"}


class Client:
    """The other side of an ASGI response, in memory."""

    def __init__(self):
        self.messages = []
        self.arrived = asyncio.Condition()
        self.gone = asyncio.Event()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        async with self.arrived:
            self.messages.append(message)
            self.arrived.notify_all()
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.gone.set()

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    async def sees(self, text):
        async with self.arrived:
            await self.arrived.wait_for(lambda: text in self.body)


class Source:
    """Frames, then silence, an error or the end; remembers that it was closed."""

    def __init__(self, *frames, then="silence"):
        self.frames, self.then, self.closed = frames, then, False

    async def __call__(self):
        try:
            for data in self.frames:
                yield data
            if self.then == "deafness":  # as redis' client is when a cancel meets a time limit of zero
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Future()
            if self.then in ("silence", "deafness"):
                await asyncio.Future()
            if self.then == "error":
                raise ZeroDivisionError
        finally:
            self.closed = True


@contextlib.asynccontextmanager
async def streaming(source, streams=None):
    client, streams = Client(), streams if streams is not None else OpenStreams()
    task = asyncio.create_task(EventStream(source(), streams)(SCOPE, client.receive, client.send))
    yield client, streams
    await asyncio.wait_for(task, 5)
    assert len(streams) == 0
    assert source.closed


def test_a_frame_carries_id_type_and_data():
    data = b'{"type":"response.created","sequence_number":0}'

    assert frame(0, data) == b"id: 0\nevent: response.created\ndata: " + data + b"\n\n"


def test_a_frame_without_a_type_is_a_mistake():
    with pytest.raises(ValueError, match="type"):
        frame(0, b'{"sequence_number":0}')


def test_a_stream_ends_with_its_source():
    async def scenario():
        async with streaming(Source(b"one", b"two", then="end")) as (client, _):
            pass
        assert client.body == b"onetwo"
        assert client.messages[-1]["more_body"] is False
        assert (b"cache-control", b"no-cache") in client.messages[0]["headers"]

    asyncio.run(scenario())


def test_a_client_that_leaves_closes_the_source():
    async def scenario():
        async with streaming(Source(b"one")) as (client, streams):
            await client.sees(b"one")
            assert len(streams) == 1
            client.gone.set()

    asyncio.run(scenario())


def test_closing_ends_every_stream_and_those_to_come():
    async def scenario():
        streams = OpenStreams()
        async with streaming(Source(b"one"), streams) as (client, _):
            await client.sees(b"one")
            streams.close()
        assert client.messages[-1]["more_body"] is False
        source = Source(b"late")
        late = Client()
        await EventStream(source(), streams)(SCOPE, late.receive, late.send)
        assert late.body == b""
        assert late.messages[-1]["more_body"] is False

    asyncio.run(scenario())


def test_closing_before_the_first_step_still_says_goodbye():
    async def scenario():
        client, streams = Client(), OpenStreams()
        task = asyncio.create_task(EventStream(Source(b"one")(), streams)(SCOPE, client.receive, client.send))
        while not len(streams):
            await asyncio.sleep(0)
        streams.close()
        await asyncio.wait_for(task, 5)
        assert client.messages[-1]["more_body"] is False

    asyncio.run(scenario())


def test_an_error_in_the_source_ends_the_stream_in_good_order(caplog):
    async def scenario():
        async with streaming(Source(b"one", then="error")) as (client, _):
            pass
        assert client.body == b"one"
        assert client.messages[-1]["more_body"] is False

    asyncio.run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_a_request_that_is_cancelled_closes_the_source():
    async def scenario():
        client, source = Client(), Source(b"one")
        task = asyncio.create_task(EventStream(source(), OpenStreams())(SCOPE, client.receive, client.send))
        await client.sees(b"one")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert source.closed

    asyncio.run(scenario())


def test_silence_is_filled_with_pings(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.01)

    async def scenario():
        async with streaming(Source(b"one")) as (client, _):
            await client.sees(b"one: ping\n")
            client.gone.set()

    asyncio.run(scenario())


def test_pings_are_few_at_a_time_and_reach_all(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    monkeypatch.setattr(sse, "PINGS", 1)
    monkeypatch.setattr(sse, "PING_PAUSE", 0.001)

    async def scenario():
        streams = OpenStreams()
        async with contextlib.AsyncExitStack() as stack:
            clients = [(await stack.enter_async_context(streaming(Source(), streams)))[0] for _ in range(3)]
            for client in clients:
                await client.sees(b": ping\n: ping\n")
            for client in clients:
                client.gone.set()

    asyncio.run(scenario())


def test_who_was_written_to_is_the_last_to_be_pinged():
    async def scenario():
        streams, first, second = OpenStreams(), object(), object()
        streams.add(first)
        streams.add(second)
        streams.touch(first)
        assert list(streams._open) == [second, first]
        streams.remove(first)
        streams.remove(second)
        assert streams._timer is None

    asyncio.run(scenario())


def test_a_source_that_misses_its_cancel_is_told_again(monkeypatch):
    monkeypatch.setattr(sse, "CANCEL_AGAIN", 0.01)

    async def scenario():
        async with streaming(Source(b"one", then="deafness")) as (client, _):
            await client.sees(b"one")
            client.gone.set()

    asyncio.run(scenario())


def test_a_ping_is_no_event_to_openais_client():
    wire = [sse.frame(0, b'{"type":"a"}'), sse.PING, sse.PING, sse.frame(1, b'{"type":"b"}')]

    assert [event.data for event in SSEDecoder().iter_bytes(iter(wire))] == ['{"type":"a"}', '{"type":"b"}']


def test_head_gets_headers_only():
    async def scenario():
        client = Client()
        await EventStream(Source(b"one")(), OpenStreams())({**SCOPE, "method": "HEAD"}, client.receive, client.send)
        assert client.body == b""
        assert len(client.messages) == 2

    asyncio.run(scenario())


def test_over_a_socket_a_client_that_leaves_is_noticed(make_client):
    source = Source(b"one")
    client = make_client(
        Route("GET", "/stream", lambda request: EventStream(source(), request.platform.streams), Rights.PUBLIC)
    )
    streams = client.app.state.platform.streams

    with client.stream("GET", "/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        parts = response.iter_raw()
        assert next(parts) == b"one"
        assert len(streams) == 1

    wait_until(lambda: source.closed)
    assert len(streams) == 0


def test_a_server_that_stops_ends_its_streams_first(offline_settings, run_app):
    source = Source(b"one")
    rows = [Route("GET", "/stream", lambda request: EventStream(source(), request.platform.streams), Rights.PUBLIC)]

    with run_app(build(offline_settings, rows)) as (server, client), client.stream("GET", "/stream") as response:
        parts = response.iter_raw()
        assert next(parts) == b"one"
        server.should_exit = True
        assert list(parts) == []  # httpx raises here when the end is not a proper one
    assert source.closed


def wait_until(condition):
    """Wait for another thread; the test's own time limit bounds it."""
    while not condition():
        time.sleep(0.01)
