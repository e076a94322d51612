"""Reading and parsing of request bodies: limits, strict JSON, and rejection of what cannot be stored."""

import asyncio
import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from models.platform.errors import InvalidRequest
from web.http import bodies
from web.http.bodies import MAX_BYTES, BodyTooLarge, DrainingResponse, parse_object, read

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


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


@given(st.dictionaries(TEXT, VALUES))
def test_every_json_object_is_parsed_unchanged(value):
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary() | VALUES.map(orjson.dumps) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_parsed_as_an_object_or_rejected(body):
    try:
        value = parse_object(body)
    except InvalidRequest:
        return
    assert isinstance(value, dict)
    assert b"\\u0000" not in orjson.dumps(value).replace(b"\\\\", b"")


@given(VALUES, st.sampled_from(["\0", "a\0b"]), st.booleans())
def test_a_nul_character_is_rejected_at_any_depth(value, text, as_key):
    nested = {"outer": [value, {text: 1} if as_key else {"key": [text]}]}

    with pytest.raises(InvalidRequest):
        parse_object(json.dumps(nested).encode())


def test_an_escaped_backslash_before_u0000_is_not_a_nul_character():
    assert parse_object(rb'{"a": "\\u0000"}') == {"a": r"\u0000"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"b": [{"a": 1, "a": 2}]}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
)
def test_invalid_or_ambiguous_json_is_rejected(body):
    with pytest.raises(InvalidRequest) as error:
        parse_object(body)

    assert error.value.code == "invalid_json"


@pytest.mark.parametrize("member", [b"[],", b"{},", b"1,", b'"a",', b'"\\"[",'])
def test_a_body_with_too_many_values_is_rejected(member):
    body = b'{"a":[' + member * 100_001 + b"1]}"

    with pytest.raises(InvalidRequest, match="100000 values"):
        parse_object(body)


def test_delimiters_within_a_string_do_not_count_as_values():
    text = '[{,\\",' * 100_000

    assert parse_object(orjson.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize("body", [b'{"a":"' + b',\\"' * 400_000, b"," * 200_000 + b'"\\', b'"",' * 200_000])
def test_removing_strings_takes_linear_time(body):
    start = time.process_time()

    with pytest.raises(InvalidRequest):
        parse_object(body)

    assert time.process_time() - start < 2


def test_many_shallow_values_do_not_count_as_depth():
    body = b'{"a": [' + b",".join([b"[]"] * 1000) + b"]}"

    assert len(parse_object(body)["a"]) == 1000


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
