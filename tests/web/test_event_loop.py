"""No request keeps the event loop of the web process busy: every other request would wait for it."""

from collections.abc import Iterator

import pytest

from tests.web.api.turns.test_schemas import BOMB, chat_body, response_body, schedule_body, tool_body
from tests.web.busy_loop import MOST, BusyLoop, watch_loop

WORDS = "word " * 300_000
NESTED = "[" * 150 + "]" * 150
SCHEMA = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(200)}}
TOOLS = [{"type": "function", "name": f"f{number}", "parameters": SCHEMA} for number in range(100)]
CRON = {"name": "never", "trigger": {"type": "cron", "expression": "1 0 31 2,4,6,9,11 *"}, "work": {"kind": "turn"}}

REQUESTS = [
    ("POST", "/v1/responses", response_body(BOMB)),
    ("POST", "/v1/responses", tool_body(BOMB)),
    ("POST", "/v1/responses", {"input": "x", "background": True, "tools": TOOLS}),
    ("POST", "/v1/responses", {"input": "x", "background": True, "instructions": WORDS}),
    ("POST", "/v1/responses", {"input": WORDS, "background": True}),
    ("POST", "/v1/responses", {"input": "x", "metadata": NESTED}),
    ("POST", "/v1/responses", {"input": [{"role": "user", "content": "x"}] * 10_000, "background": True}),
    ("POST", "/v1/responses", {f"key{number}": number for number in range(50_000)}),
    ("POST", "/v1/responses/input_tokens", response_body(BOMB)),
    ("POST", "/v1/chat/completions", chat_body(BOMB)),
    ("POST", "/v1/chat/completions", {"model": "default", "messages": [{"role": "user", "content": "x"}] * 10_000,
                                      "response_format": {"type": "x"}}),
    ("POST", "/v1/schedules", schedule_body(BOMB)),
    ("POST", "/v1/schedules", CRON),
    ("POST", "/v1/memories", {"items": [{"text": "x"}] * 10_000}),
    ("POST", "/v1/embeddings", {"model": "default", "input": ["x"] * 50_000}),
    ("POST", "/v1/conversations", {"items": [{"type": "message", "role": "user", "content": "x"}] * 10_000}),
    ("GET", "/openapi.json", None),
    ("GET", "/v1/jobs", None),
]  # fmt: skip


@pytest.fixture
def busy_loop(api) -> Iterator[BusyLoop]:
    """The event loop of the server."""
    with watch_loop(api) as busy_loop:
        yield busy_loop


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_a_request_keeps_the_event_loop_busy_for_a_moment_at_most(user, busy_loop, method, path, body):
    answers = [user.request(method, path, json=body)]  # the first one may import and compile what all share
    busy = busy_loop.measure(lambda: answers.append(user.request(method, path, json=body)))
    assert answers[1].status_code < 500
    assert busy < MOST
