"""What the clients of the measurements make of a stream, and what they refuse to measure."""

import pytest

from bench.client import Broken, Heard, check, heard, script, text_of, without_pings
from bench.load import turn
from bench.scenarios.recovery import TOKENS, amiss
from models.journal.events import event
from web.streams.sse import frame

PLACE = {"item_id": "msg_1"}


def stream(*payloads: tuple[str, dict]) -> list[Heard]:
    """A stream as the server writes it, heard at once."""
    events = [event(sequence, type_, payload) for sequence, (type_, payload) in enumerate(payloads)]
    return [heard(0.0, frame(event.sequence, event.data).removesuffix(b"\n\n")) for event in events]


def deltas(*texts: str) -> list[tuple[str, dict]]:
    return [("response.output_text.delta", {**PLACE, "delta": text}) for text in texts]


COMPLETED = ("response.completed", {"response": {"usage": {"output_tokens": 2}}})


def test_a_frame_of_the_server_is_understood():
    first, last = stream(*deltas("w0 "), COMPLETED)

    assert (first.sequence, first.type, first.json()["delta"]) == (0, "response.output_text.delta", "w0 ")
    assert last.sequence == 1


def test_pings_in_front_of_an_event_are_passed_over():
    assert without_pings(b": ping\n: ping\nid: 0\nevent: e\ndata: {}") == b"id: 0\nevent: e\ndata: {}"
    assert without_pings(b": ping") == b""


def test_a_whole_scripted_turn_passes():
    events = stream(*deltas("w0 w", "1 "), COMPLETED)

    check(events, 2)

    assert text_of(events) == script(2) == "w0 w1 "


@pytest.mark.parametrize(
    "events",
    [
        stream(*deltas("w0 ", "w1 "), COMPLETED)[1:],
        stream(*deltas("w0 ", "w1 ")),
        stream(*deltas("w0 ", "w1 "), ("response.failed", {})),
        stream(*deltas("w0 ", "w0 ", "w1 "), COMPLETED),
        stream(*deltas("w1 "), COMPLETED),
    ],
    ids=["gap", "cut short", "failed", "repeat", "loss"],
)
def test_a_broken_turn_is_not_measured(events):
    with pytest.raises(Broken):
        check(events, 2)


def test_a_raw_answer_yields_its_events_and_usage():
    body = b"".join(frame(e.sequence, e.data) for e in [event(0, *deltas("w0 ")[0]), event(1, *COMPLETED)])

    ended = turn(0.5, b"HTTP/1.1 200 OK\r\n\r\n2a\r\n" + body + b"\r\n0\r\n\r\n")

    assert (ended.seconds, ended.events) == (0.5, 2)
    assert ended.last["response"]["usage"]["output_tokens"] == 2


def test_a_raw_answer_without_an_end_is_not_measured():
    with pytest.raises(Broken):
        turn(0.5, b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}\r\n0\r\n\r\n")


def test_tokens_lost_and_repeated_are_counted():
    whole = [f"w{number}" for number in range(TOKENS)]

    assert amiss(" ".join(whole)) == (0, 0)
    assert amiss(" ".join(whole[1:])) == (1, 0)
    assert amiss(" ".join([*whole, "w3", "w4"])) == (0, 2)
