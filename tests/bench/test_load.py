"""Raw responses of the closed loop."""

import pytest

from bench.harness.sse import CheckFailed
from bench.load import parse_turn
from models.journal.events import event
from web.streams.sse import frame


def test_a_raw_response_has_its_events_and_usage():
    delta = event(0, "response.output_text.delta", {"item_id": "msg_1", "delta": "w0 "})
    completed = event(1, "response.completed", {"response": {"usage": {"output_tokens": 2}}})
    body = b"".join(frame(each.sequence, each.data) for each in [delta, completed])

    turn = parse_turn(0.5, b"HTTP/1.1 200 OK\r\n\r\n2a\r\n" + body + b"\r\n0\r\n\r\n")

    assert (turn.seconds, turn.events) == (0.5, 2)
    assert turn.last["response"]["usage"]["output_tokens"] == 2


def test_a_raw_response_without_an_end_fails():
    with pytest.raises(CheckFailed):
        parse_turn(0.5, b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}\r\n0\r\n\r\n")
