"""Event streams: frames, pings, and the end by the source, the client or a shutdown."""

import asyncio
import contextlib

import pytest
from openai._streaming import SSEDecoder

from bench.harness.waiting import wait_until
from models.journal.events import event
from web.access.rights import Rights
from web.api.routing import Route
from web.app import build
from web.streams import sse
from web.streams.sse import EventStream, OpenStreams, frame, frames

SCOPE = {"type": "http", "method": "GET"}


class AsgiClient:
    """The client of an ASGI response, in memory; it disconnects when `disconnected` is set."""

    def __init__(self):
        self.messages = []
        self.changed = asyncio.Condition()
        self.disconnected = asyncio.Event()

    async def receive(self):
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        async with self.changed:
            self.messages.append(message)
            self.changed.notify_all()
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.disconnected.set()

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    async def wait_for(self, text):
        async with self.changed:
            await self.changed.wait_for(lambda: text in self.body)


class Source:
    """Frames, then silence, an error or the end; `closed` is set when it was closed."""

    def __init__(self, *frames, then="silence"):
        self.frames, self.then, self.closed = frames, then, False

    async def __call__(self):
        try:
            for data in self.frames:
                yield data
            if self.then == "uncancellable":  # like redis-py when a cancel coincides with a timeout of zero
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Future()
            if self.then in ("silence", "uncancellable"):
                await asyncio.Future()
            if self.then == "error":
                raise ZeroDivisionError
        finally:
            self.closed = True


@contextlib.asynccontextmanager
async def open_stream(source, streams=None):
    client, streams = AsgiClient(), streams if streams is not None else OpenStreams()
    task = asyncio.create_task(EventStream(source(), streams)(SCOPE, client.receive, client.send))
    yield client, streams
    await asyncio.wait_for(task, 5)
    assert len(streams) == 0
    assert source.closed


def test_every_event_is_one_line_of_data_for_all_readers():
    """Many clients split lines at U+2028 and its like."""
    events = [event(0, "test.said", {"text": "Rex\u2028loves\u0085the\u2029lake"}), event(1, "test.said", {})]

    lines = b"".join(frames(events)).decode().splitlines()

    assert [line.partition(":")[0] for line in lines if line] == ["id", "event", "data"] * 2
    assert frame(0, events[0].data) + frame(1, events[1].data) == b"".join(frames(events))


def test_a_frame_has_id_type_and_data():
    data = b'{"type":"response.created","sequence_number":0}'

    assert frame(0, data) == b"id: 0\nevent: response.created\ndata: " + data + b"\n\n"


def test_a_frame_without_a_type_raises():
    with pytest.raises(ValueError, match="type"):
        frame(0, b'{"sequence_number":0}')


def test_a_stream_ends_with_its_source():
    async def scenario():
        async with open_stream(Source(b"one", b"two", then="end")) as (client, _):
            pass
        assert client.body == b"onetwo"
        assert client.messages[-1]["more_body"] is False
        assert (b"cache-control", b"no-store") in client.messages[0]["headers"]

    asyncio.run(scenario())


def test_a_disconnect_closes_the_source():
    async def scenario():
        async with open_stream(Source(b"one")) as (client, streams):
            await client.wait_for(b"one")
            assert len(streams) == 1
            client.disconnected.set()

    asyncio.run(scenario())


def test_closing_ends_open_streams_and_later_ones():
    async def scenario():
        streams = OpenStreams()
        async with open_stream(Source(b"one"), streams) as (client, _):
            await client.wait_for(b"one")
            streams.close()
        assert client.messages[-1]["more_body"] is False
        source = Source(b"late")
        late = AsgiClient()
        await EventStream(source(), streams)(SCOPE, late.receive, late.send)
        assert late.body == b""
        assert late.messages[-1]["more_body"] is False

    asyncio.run(scenario())


def test_closing_before_the_first_step_still_ends_the_body():
    async def scenario():
        client, streams = AsgiClient(), OpenStreams()
        task = asyncio.create_task(EventStream(Source(b"one")(), streams)(SCOPE, client.receive, client.send))
        while not len(streams):
            await asyncio.sleep(0)
        streams.close()
        await asyncio.wait_for(task, 5)
        assert client.messages[-1]["more_body"] is False

    asyncio.run(scenario())


def test_an_error_in_the_source_ends_the_body_and_is_logged(caplog):
    async def scenario():
        async with open_stream(Source(b"one", then="error")) as (client, _):
            pass
        assert client.body == b"one"
        assert client.messages[-1]["more_body"] is False

    asyncio.run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_cancelling_the_request_closes_the_source():
    async def scenario():
        client, source = AsgiClient(), Source(b"one")
        task = asyncio.create_task(EventStream(source(), OpenStreams())(SCOPE, client.receive, client.send))
        await client.wait_for(b"one")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert source.closed

    asyncio.run(scenario())


def test_silent_streams_get_pings(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.01)

    async def scenario():
        async with open_stream(Source(b"one\n\n")) as (client, _):
            await client.wait_for(b"one\n\n: ping\n")
            client.disconnected.set()

    asyncio.run(scenario())


class InterruptedSource(Source):
    """Frames, of which the first one is followed by a pause until `goes_on` is set."""

    def __init__(self, *frames):
        super().__init__(*frames)
        self.goes_on = asyncio.Event()

    async def __call__(self):
        async for data in super().__call__():
            yield data
            await self.goes_on.wait()


def test_no_ping_is_written_into_an_event():
    """Given a stream that has written only a part of an event, when it is silent, then it gets no ping."""
    large = event(0, "response.large", {"text": "x" * sse.SLICE})

    async def scenario():
        source = InterruptedSource(*frames([large]))
        async with open_stream(source) as (client, streams):
            await client.wait_for(b"data: ")
            (stream,) = streams._open
            stream.ping()
            await asyncio.sleep(0)
            source.goes_on.set()
            await client.wait_for(b"}\n\n")
            stream.ping()
            await client.wait_for(sse.PING)
            client.disconnected.set()
        assert client.body == frame(large.sequence, large.data) + sse.PING

    asyncio.run(scenario())


def test_pings_are_written_in_portions_to_all_streams(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    monkeypatch.setattr(sse, "PINGS", 1)
    monkeypatch.setattr(sse, "PING_PAUSE", 0.001)

    async def scenario():
        streams = OpenStreams()
        async with contextlib.AsyncExitStack() as stack:
            clients = [(await stack.enter_async_context(open_stream(Source(), streams)))[0] for _ in range(3)]
            for client in clients:
                await client.wait_for(b": ping\n: ping\n")
            for client in clients:
                client.disconnected.set()

    asyncio.run(scenario())


def test_a_write_postpones_the_ping_of_a_stream():
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


def test_a_source_that_ignores_a_cancel_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(sse, "CANCEL_AGAIN", 0.01)

    async def scenario():
        async with open_stream(Source(b"one", then="uncancellable")) as (client, _):
            await client.wait_for(b"one")
            client.disconnected.set()

    asyncio.run(scenario())


def test_openais_client_ignores_pings():
    wire = [sse.frame(0, b'{"type":"a"}'), sse.PING, sse.PING, sse.frame(1, b'{"type":"b"}')]

    assert [event.data for event in SSEDecoder().iter_bytes(iter(wire))] == ['{"type":"a"}', '{"type":"b"}']


def test_a_head_request_gets_headers_only():
    async def scenario():
        client = AsgiClient()
        await EventStream(Source(b"one")(), OpenStreams())({**SCOPE, "method": "HEAD"}, client.receive, client.send)
        assert client.body == b""
        assert len(client.messages) == 2

    asyncio.run(scenario())


def test_a_closed_socket_closes_the_source(make_client):
    source = Source(b"one")
    client = make_client(
        Route("GET", "/stream", lambda request: EventStream(source(), request.platform.streams), Rights.PUBLIC)
    )
    streams = client.app.state.platform.streams

    with client.stream("GET", "/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = response.iter_raw()
        assert next(chunks) == b"one"
        assert len(streams) == 1

    wait_until(lambda: source.closed)
    assert len(streams) == 0


def test_a_shutdown_ends_open_streams(offline_settings, run_app):
    source = Source(b"one")
    routes = [Route("GET", "/stream", lambda request: EventStream(source(), request.platform.streams), Rights.PUBLIC)]

    with run_app(build(offline_settings, routes)) as (server, client), client.stream("GET", "/stream") as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"one"
        server.should_exit = True
        assert list(chunks) == []  # httpx raises here if the body does not end properly
    assert source.closed


def test_a_stream_is_slow_while_its_client_does_not_read():
    async def scenario():
        # Given a client that does not take the first event
        client, streams, taken = AsgiClient(), OpenStreams(), asyncio.Event()
        began = asyncio.Event()

        async def send(message):
            if message.get("body") == b"data\n":
                began.set()
                await taken.wait()
            await client.send(message)

        async def source():
            yield b"data\n"
            await asyncio.Event().wait()

        task = asyncio.create_task(EventStream(source(), streams)(SCOPE, client.receive, send))
        # When it is written, then the stream is slow until the client has read it
        await began.wait()
        assert streams.count_slow() == 1
        taken.set()
        await client.wait_for(b"data")
        await asyncio.sleep(0)
        assert (len(streams), streams.count_slow()) == (1, 0)
        client.disconnected.set()
        await task
        assert streams.count_slow() == 0

    asyncio.run(scenario())
