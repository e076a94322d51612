"""Failures of endpoints by kind, whether they may have accepted the request, and when they may be asked again."""

import logging
import time
from collections.abc import Callable
from email.utils import formatdate

import orjson
import pytest

from models.platform.errors import SanghaError
from pipelines.inference.openai.endpoint_errors import (
    MAX_RETRY_AFTER,
    EndpointError,
    EndpointFailure,
    EndpointRejection,
    error_for_status,
    parse_retry_after,
)
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    ReceivedRequest,
    chunk,
    ends_stream_after,
    fails_with,
    running_endpoint,
)
from tests.pipelines.inference.openai.generation import KEY, answer, engine_of, settings_of


def failure(engine: OpenAIEngine) -> EndpointFailure:
    """Return what a request fails with."""
    with pytest.raises((EndpointError, EndpointRejection)) as caught:
        answer(engine)
    assert isinstance(caught.value, EndpointFailure)
    return caught.value


@pytest.mark.parametrize(
    ("status", "codes", "kind", "accepted", "error"),
    [
        (400, (), "bad_request", False, EndpointRejection),
        (400, ("content_filter",), "content_filter", False, EndpointRejection),
        (400, ("invalid_api_key",), "auth", False, EndpointRejection),
        (401, (), "auth", False, EndpointRejection),
        (402, (), "quota", False, EndpointRejection),
        (403, (), "auth", False, EndpointRejection),
        (404, (), "model_not_found", False, EndpointRejection),
        (408, (), "timeout", True, EndpointError),
        (409, (), "overloaded", True, EndpointError),
        (418, (), "invalid_response", False, EndpointRejection),
        (429, (), "rate_limited", False, EndpointError),
        (429, ("insufficient_quota",), "quota", False, EndpointRejection),
        (500, (), "overloaded", True, EndpointError),
        (502, (), "overloaded", True, EndpointError),
        (503, (), "overloaded", False, EndpointError),
        (529, (), "overloaded", False, EndpointError),
    ],
)
def test_a_status_and_its_codes_have_a_kind(
    status: int, codes: tuple[str, ...], kind: str, accepted: bool, error: type[SanghaError]
) -> None:
    raised = error_for_status(status, "a message", codes)

    assert isinstance(raised, error)
    assert (raised.kind, raised.accepted) == (kind, accepted)


def test_the_endpoint_says_when_it_may_be_asked_again(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    def limits(request: ReceivedRequest) -> None:
        body = orjson.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
        request.send_response(429)
        request.send_header("Retry-After", "7")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    endpoint.handlers += [limits]

    error = failure(engine)

    assert (error.kind, error.retry_after, error.accepted) == ("rate_limited", 7.0, False)


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("Retry-After", "1.5", 1.5),
        ("retry-after", "-3", 0.0),
        ("Retry-After", "99999999", MAX_RETRY_AFTER),
        ("Retry-After", "soon", None),
        ("Retry-After", "nan", None),
        ("Retry-After-Ms", "250", 0.25),
        ("X-Other", "1", None),
    ],
)
def test_retry_after_in_seconds(name: str, value: str, seconds: float | None) -> None:
    assert parse_retry_after([(name.encode(), value.encode())]) == seconds


def test_retry_after_as_an_http_date() -> None:
    seconds = parse_retry_after([(b"Retry-After", formatdate(time.time() + 60, usegmt=True).encode())])

    assert seconds is not None
    assert 55 < seconds <= 60


def test_a_refused_connection_has_accepted_nothing() -> None:
    with running_endpoint() as endpoint:
        engine = engine_of(settings_of(endpoint))

    error = failure(engine)

    assert (error.kind, error.accepted) == ("refused", False)


def test_a_silent_endpoint_may_have_accepted_the_request(endpoint: Endpoint) -> None:
    engine = engine_of(settings_of(endpoint, timeout=1))
    endpoint.handlers += [lambda request: request.disconnects() and None]

    error = failure(engine)

    assert (error.kind, error.accepted) == ("timeout", True)


def breaks_after_text(request: ReceivedRequest) -> None:
    request.begin_stream()
    request.send(chunk({"content": "a"}))
    request.break_connection()


@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        (ReceivedRequest.break_connection, "dropped"),
        (breaks_after_text, "dropped"),
        (ends_stream_after(chunk({"content": "a"})), "dropped"),
        (ends_stream_after(b"data: {not json\n\n"), "invalid_response"),
        (ends_stream_after(b'data: {"error": {"message": "busy", "code": "rate_limit_exceeded"}}\n\n'), "rate_limited"),
        (ends_stream_after(b'data: {"error": {"message": "no memory"}}\n\n'), "overloaded"),
    ],
)
def test_a_failure_after_the_request_was_sent_may_be_billed(
    endpoint: Endpoint, engine: OpenAIEngine, handle: Callable[[ReceivedRequest], None], kind: str
) -> None:
    endpoint.handlers += [handle]

    error = failure(engine)

    assert (error.kind, error.accepted) == (kind, True)


def echo_in_chunk(request: ReceivedRequest) -> None:
    ends_stream_after(f"data: {{no json, {KEY}".encode() + b"\n\n")(request)


def echo_in_stream_error(request: ReceivedRequest) -> None:
    ends_stream_after(b"data: " + orjson.dumps({"error": {"message": f"bad key {KEY}"}}) + b"\n\n")(request)


def echo_escaped(request: ReceivedRequest) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in KEY)
    request.respond_with_error(500, f'{{"error": {{"message": "{escaped}"}}}}'.encode())


@pytest.mark.parametrize(
    "handle",
    [
        fails_with(400, KEY), fails_with(401, KEY), fails_with(404, KEY), fails_with(429, KEY), fails_with(500, KEY),
        fails_with(403, "x" * 298 + KEY), echo_in_chunk, echo_in_stream_error, echo_escaped,
        ReceivedRequest.break_connection,
    ],
)  # fmt: skip
def test_the_api_key_is_in_no_error_and_no_log(
    endpoint: Endpoint,
    engine: OpenAIEngine,
    handle: Callable[[ReceivedRequest], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.handlers += [handle]

    with pytest.raises(SanghaError) as caught:
        answer(engine)

    shown = f"{caught.value!r} {caught.value} {caught.getrepr(showlocals=False)} {engine!r} {caplog.text}"
    assert KEY not in shown
    assert "x" * 298 + KEY[:2] not in shown


def test_a_text_that_repeats_the_api_key_is_masked(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [ends_stream_after(chunk({"content": f"your key is {KEY}"}), chunk({}, "stop"))]

    assert answer(engine)[0] == "your key is ***"
