"""Reading of request bodies within limits of size and time."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from web.http import bodies
from web.http.bodies import MAX_BYTES, BodyTooLarge, DrainingResponse, read


def read_from(*messages, headers=()):
    pending = list(messages)

    async def receive():
        if not pending:
            await asyncio.Future()
        return pending.pop(0)

    return asyncio.run(read({"headers": list(headers)}, receive))


def chunk(data, more=False):
    return {"type": "http.request", "body": data, "more_body": more}


def test_chunks_are_joined():
    assert read_from(chunk(b"ab", True), chunk(b"", True), chunk(b"c")) == b"abc"


def test_a_declared_length_above_the_limit_is_rejected_before_reading():
    with pytest.raises(BodyTooLarge):
        read_from(headers=[(b"content-length", b"50000000")])


def test_a_body_without_length_is_rejected_when_it_exceeds_the_limit():
    half = b"x" * (MAX_BYTES // 2 + 1)

    with pytest.raises(BodyTooLarge):
        read_from(chunk(half, True), chunk(half, True))


def test_a_body_of_exactly_the_limit_is_accepted():
    assert len(read_from(chunk(b"x" * MAX_BYTES))) == MAX_BYTES


def test_a_disconnect_while_reading_raises():
    with pytest.raises(ClientDisconnect):
        read_from(chunk(b"a", True), {"type": "http.disconnect"})


def test_a_body_that_does_not_arrive_times_out(monkeypatch):
    monkeypatch.setattr(bodies, "TIMEOUT", 0.01)

    with pytest.raises(HTTPException) as error:
        read_from(chunk(b"a", True))

    assert error.value.status_code == 408


def test_a_draining_response_is_sent_before_the_rest_of_the_body_is_read():
    calls = []
    remaining = [chunk(b"x", True), chunk(b"x", False)]

    async def receive():
        calls.append("read")
        return remaining.pop(0)

    async def send(message):
        calls.append(message["type"])

    asyncio.run(DrainingResponse(Response(b"no", 413))({}, receive, send))

    assert calls == ["http.response.start", "http.response.body", "read", "read", "http.response.body"]
