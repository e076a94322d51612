"""Turns that an endpoint answers: what it receives when a worker is killed, and when it wants to be left alone."""

import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message as Headers
from typing import Any

import orjson
import pytest

from bench.harness.waiting import wait_until
from models.platform.upstreams import Upstream
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation
from tests.pipelines.inference.openai.endpoint import (
    Endpoint,
    Handler,
    ReceivedRequest,
    answers_with,
    chunk,
    running_endpoint,
)

KEY = "sk-hunter2"

pytestmark = ON_REDIS


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


def recording(headers: list[Headers], handle: Handler) -> Handler:
    """Return a handler that records the headers of its request."""
    return lambda request: (headers.append(request.headers), handle(request))[1]


def serve(stack: Installation, endpoint: Endpoint) -> Any:
    """Start a worker for the endpoint's model, and return it once requests may name it."""
    upstream = Upstream("cloud", endpoint.url, ("big",), KEY, slots=2, residency="local")
    child = stack.start_worker("", "upstream", upstreams=(upstream,))
    assert wait_until(lambda: stack.rows("SELECT FROM workers WHERE 'upstream.cloud' = ANY(queues)"))
    return child


TO_ENDPOINT = """
UPDATE jobs SET queue = 'upstream.cloud', published_at = NULL,
                arguments = jsonb_set(arguments, '{route}', '{"endpoint": "cloud", "model": "big"}')
WHERE id = (SELECT job_id FROM responses WHERE id = %s) RETURNING id
"""


def ask(stack: Installation, user: AccountOwner) -> dict[str, Any]:
    """Create a turn for the endpoint, which no local worker serves."""
    response = user.create_response()
    assert stack.rows(TO_ENDPOINT, response["id"])
    return response


def answered(user: AccountOwner, response_id: str) -> Callable[[], dict[str, Any] | None]:
    def response() -> dict[str, Any] | None:
        response = user.get(f"/v1/responses/{response_id}")
        return response if response["status"] not in ("queued", "in_progress") else None

    return response


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def test_a_killed_worker_repeats_its_request_with_the_same_key_and_says_so(
    stack: Installation, user: AccountOwner, endpoint: Endpoint
) -> None:
    # Given a worker that is killed between its request and the first byte of the answer
    headers: list[Headers] = []
    received = threading.Event()

    def waits(request: ReceivedRequest) -> None:
        received.set()
        request.disconnects(30)

    endpoint.handlers += [recording(headers, waits), recording(headers, answers_with("Hello", " there"))]
    worker = serve(stack, endpoint)
    response = ask(stack, user)
    assert received.wait(20)

    # When it is killed, and another one goes on
    worker.kill()
    stack.release_jobs(worker)
    serve(stack, endpoint)

    # Then the endpoint gets the request twice, the second time as a repeat
    final = wait_until(answered(user, response["id"]), timeout=30)
    assert text_of(final) == "Hello there"
    assert len({each["Idempotency-Key"] for each in headers}) == 1
    assert [each["X-Sangha-Repeat"] for each in headers] == [None, "1"]


def test_a_turn_waits_for_as_long_as_the_endpoint_asks(
    stack: Installation, user: AccountOwner, endpoint: Endpoint
) -> None:
    times: list[float] = []

    def limits(request: ReceivedRequest) -> None:
        times.append(time.monotonic())
        body = orjson.dumps({"error": {"message": f"slow down, {KEY}"}})
        request.send_response(429)
        request.send_header("Retry-After", "2")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answers(request: ReceivedRequest) -> None:
        times.append(time.monotonic())
        answers_with("Hello")(request)

    endpoint.handlers += [limits, answers]
    serve(stack, endpoint)

    response = ask(stack, user)

    final = wait_until(answered(user, response["id"]), timeout=30)
    assert text_of(final) == "Hello"
    assert times[1] - times[0] >= 2


def test_an_answer_that_breaks_off_begins_again(
    stack: Installation, user: AccountOwner, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(request: ReceivedRequest) -> None:
        request.begin_stream()
        request.send(chunk({"content": "Hel"}))
        request.break_connection()

    headers: list[Headers] = []
    endpoint.handlers += [recording(headers, breaks), recording(headers, answers_with("Hello"))]
    serve(stack, endpoint)

    response = ask(stack, user)

    final = wait_until(answered(user, response["id"]), timeout=30)
    assert text_of(final) == "Hello"
    assert [each["X-Sangha-Repeat"] for each in headers] == [None, "1"]
    assert KEY not in orjson.dumps(stack.rows("SELECT error::text, traceback FROM all_jobs")).decode()
