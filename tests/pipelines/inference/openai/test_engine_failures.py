"""The engine `openai` with an endpoint that fails, disconnects or cannot be trusted."""

import ssl
import threading
import time
from collections.abc import Callable

import pytest

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import (
    EngineError,
    Finish,
    Token,
)
from pipelines.inference.openai import endpoint_client
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    ReceivedRequest,
    answers_with,
    chunk,
    ends_stream_after,
    fails_with,
    running_endpoint,
)
from tests.pipelines.inference.openai.generation import (
    KEY,
    answer,
    engine_of,
    generate,
    settings_of,
    wait_for_disconnect,
)


@pytest.mark.parametrize("status", [429, 408, 500, 503])
def test_a_temporary_error_status_is_an_engine_error_and_the_next_request_succeeds(
    endpoint: Endpoint, engine: OpenAIEngine, status: int
) -> None:
    endpoint.handlers += [fails_with(status, f"wait, {KEY}"), answers_with("a")]
    with pytest.raises(EngineError, match=rf"{status}: wait, \*\*\*"):
        answer(engine)
    assert answer(engine)[0] == "a"


def test_the_api_key_is_masked_before_an_error_is_cut(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [fails_with(500, "x" * 295 + KEY)]
    with pytest.raises(EngineError) as caught:
        answer(engine)
    assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, "temperature is 7", "invalid_request", "temperature is 7"),
        (400, "maximum context length is 900", "context_length_exceeded", "maximum context length is 900"),
        (401, f"{KEY} is no key", "server_error", "rejects this installation's requests (401)"),
        (404, "no such model", "server_error", "rejects this installation's requests (404)"),
        (301, "elsewhere", "server_error", "rejects this installation's requests (301)"),
    ],
)
def test_a_permanent_error_status_is_a_permanent_failure_without_the_api_key(
    endpoint: Endpoint, engine: OpenAIEngine, status: int, body: str, code: str, message: str
) -> None:
    endpoint.handlers += [fails_with(status, body)]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine)
    assert caught.value.code == code
    assert message in caught.value.message
    assert KEY not in caught.value.message


def breaks_after(*chunks: bytes) -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for data in chunks:
            request.send(data)
        request.break_connection()

    return handle


@pytest.mark.parametrize(
    ("handle", "match"),
    [
        (breaks_after(chunk({"content": "a"})), "closed the connection"),
        (ends_stream_after(chunk({"content": "a"})), "without a finish reason"),
        (ends_stream_after(chunk({"content": "a"}), b"data: {not json\n\n"), "invalid chunk"),
        (ends_stream_after(chunk({"content": "a"}), b'data: {"choices": [7]}\n\n'), "invalid chunk"),
        (
            ends_stream_after(chunk({"content": "a"}), b'data: {"error": {"message": "out of memory"}}\n\n'),
            "out of memory",
        ),
        (
            ends_stream_after(chunk({"content": "a"}), b"data: " + b"x" * (endpoint_client.MAX_CHUNK + 1)),
            "a line of more",
        ),
    ],
)
def test_a_truncated_or_invalid_stream_is_an_engine_error_after_its_first_tokens(
    endpoint: Endpoint, engine: OpenAIEngine, handle: Callable[[ReceivedRequest], None], match: str
) -> None:
    endpoint.handlers += [handle, answers_with("b")]
    items = generate(engine)
    assert next(items) == Token("a", 1)
    with pytest.raises(EngineError, match=match):
        list(items)
    assert answer(engine)[0] == "b"


def test_an_endpoint_that_sends_nothing_times_out(endpoint: Endpoint) -> None:
    engine = engine_of(settings_of(endpoint, timeout=1))
    freed = threading.Event()
    endpoint.handlers += [lambda request: wait_for_disconnect(request, freed)]
    with pytest.raises(EngineError, match="no data for"):
        answer(engine)
    assert freed.wait(5)


def test_an_idle_connection_that_the_endpoint_closed_is_not_reused(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    closed = threading.Event()

    def handle(request: ReceivedRequest) -> None:
        answers_with("a")(request)
        request.break_connection()
        closed.set()

    endpoint.handlers += [handle, answers_with("b")]
    assert answer(engine)[0] == "a"
    assert closed.wait(5)
    assert answer(engine)[0] == "b"


def test_a_request_on_a_closed_connection_is_sent_again_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [
        answers_with("a"),
        ReceivedRequest.break_connection,
        answers_with("b"),
        ReceivedRequest.break_connection,
        ReceivedRequest.break_connection,
    ]
    assert answer(engine)[0] == "a"
    assert answer(engine)[0] == "b"
    with pytest.raises(EngineError, match="closed the connection"):
        answer(engine)


def test_a_request_that_the_endpoint_may_have_read_is_not_sent_again(
    endpoint: Endpoint, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint may bill it."""
    monkeypatch.setattr(endpoint_client, "CLOSED_WITHIN", 0.05)

    def works_and_breaks(request: ReceivedRequest) -> None:
        threading.Event().wait(0.1)
        request.break_connection()

    def breaks_in_the_head(request: ReceivedRequest) -> None:
        request.wfile.write(b"HTTP/1.1 200")
        request.break_connection()

    # Given requests that fail on a new connection, after some work, and after the first bytes of a response
    endpoint.handlers += [ReceivedRequest.break_connection, answers_with("a"), works_and_breaks]
    endpoint.handlers += [answers_with("a"), breaks_in_the_head]

    for first in (None, "a", "a"):
        if first:
            assert answer(engine)[0] == first
        with pytest.raises(EngineError, match="closed the connection"):
            answer(engine)

    assert len(endpoint.requests) == 5


def test_a_repeated_request_has_the_idempotency_key_of_the_first(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    keys: list[str] = []

    def recording(handler: Callable[[ReceivedRequest], None]) -> Callable[[ReceivedRequest], None]:
        return lambda request: (keys.append(request.headers["Idempotency-Key"]), handler(request))[1]

    handlers = [answers_with("a"), ReceivedRequest.break_connection, answers_with("b")]
    endpoint.handlers += [recording(handler) for handler in handlers]

    assert answer(engine)[0] == "a"
    assert answer(engine)[0] == "b"

    assert keys[1] == keys[2] != keys[0]


def test_tls_requires_a_trusted_certificate(
    endpoint: Endpoint, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed = threading.Event()
    endpoint.handlers += [answers_with(*"abc" * 50), lambda request: wait_for_disconnect(request, freed)]
    settings = settings_of(endpoint, https=True)
    engine = engine_of(settings)
    assert answer(engine)[0] == "abc" * 50
    polls = iter([False] * 5)
    assert [*generate(engine, cancelled=lambda: next(polls, True))] == [Finish("cancelled", 0, 0, 0)]
    assert freed.wait(5)
    engine.close()
    # And not with an unknown certificate authority
    monkeypatch.delenv("SSL_CERT_FILE")
    engine = engine_of(settings)
    with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
        answer(engine)
    engine.close()


def test_tls_session_tickets_do_not_delay_cancelling(endpoint: Endpoint, trusted: ssl.SSLContext) -> None:
    """TLS 1.3 sends session tickets after the handshake: readable bytes without an answer."""
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed, request_received = threading.Event(), threading.Event()
    endpoint.handlers += [lambda request: (request_received.set(), wait_for_disconnect(request, freed))]
    engine = engine_of(settings_of(endpoint, https=True))
    polls = iter([False] * 5)
    start = time.monotonic()

    outputs = [*generate(engine, cancelled=lambda: request_received.is_set() and next(polls, True))]

    assert outputs == [Finish("cancelled", 0, 0, 0)]
    assert time.monotonic() - start < 3
    assert freed.wait(5)
    engine.close()


def test_a_refused_connection_is_an_engine_error() -> None:
    with running_endpoint() as endpoint:
        settings = settings_of(endpoint)
    engine = engine_of(settings)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:\d+ does not respond or closed the connection"):
        answer(engine)
    engine.close()
