"""Streams as the server writes them: how a client parses them, and which ones fail the check."""

import pytest

from bench.harness.sse import (
    REWOUND,
    CheckFailed,
    ReceivedEvent,
    check_stream,
    effective_events,
    parse_frame,
    read_events,
    scripted_text,
    text_of,
    without_comments,
)
from models.journal.events import event
from pipelines.chat.transcript import ANSWER_RESTARTED
from web.streams.sse import PING, frame

POSITION = {"item_id": "msg_1"}


def stream(*payloads: tuple[str, dict]) -> list[ReceivedEvent]:
    """Return a stream as the server writes it."""
    events = [event(sequence, type_, payload) for sequence, (type_, payload) in enumerate(payloads)]
    return [parse_frame(frame(each.sequence, each.data).removesuffix(b"\n\n"), 0.0) for each in events]


def deltas(*texts: str) -> list[tuple[str, dict]]:
    return [("response.output_text.delta", {**POSITION, "delta": text}) for text in texts]


COMPLETED = ("response.completed", {"response": {"usage": {"output_tokens": 2}}})


def test_a_frame_of_the_server_is_parsed():
    first, last = stream(*deltas("w0 "), COMPLETED)

    assert (first.sequence, first.type, first.json()["delta"]) == (0, "response.output_text.delta", "w0 ")
    assert last.sequence == 1
    assert (first.is_last, last.is_last) == (False, True)


def test_comments_in_front_of_an_event_are_removed():
    assert without_comments(b": ping\n: ping\nid: 0\nevent: e\ndata: {}") == b"id: 0\nevent: e\ndata: {}"
    assert without_comments(b": ping") == b""


def test_events_are_read_from_bytes_cut_anywhere_and_comments_are_skipped():
    first, second = event(0, "response.created", {}), event(1, "x", {})
    sent = PING + frame(0, first.data) + frame(1, second.data) + PING

    events = list(read_events(iter([sent[:9], sent[9:30], sent[30:]])))

    assert [(each.sequence, each.type) for each in events] == [(0, "response.created"), (1, "x")]


def test_an_incomplete_event_is_dropped():
    whole = frame(0, event(0, "response.created", {}).data)

    assert len(list(read_events([whole, whole[:-1]]))) == 1


def test_a_complete_scripted_turn_passes():
    events = stream(*deltas("w0 w", "1 "), COMPLETED)

    check_stream(events, 2)

    assert text_of(events) == scripted_text(2) == "w0 w1 "


def test_text_before_a_restart_of_the_answer_does_not_count():
    events = stream(*deltas("w0 ", "w1 "), (ANSWER_RESTARTED, {}), *deltas("w0 "), COMPLETED)

    assert text_of(events) == "w0 "
    assert text_of(events[3:]) == "w0 "


def test_a_rewind_replaces_the_events_from_its_number_on():
    before = stream(*deltas("w0 ", "w1 ", "w2 "))
    rewind, following = stream(*deltas("w0 "), (REWOUND, {}), *deltas("w1 "))[1:]

    assert effective_events([*before, rewind, following]) == [before[0], rewind, following]


@pytest.mark.parametrize(
    "events",
    [
        stream(*deltas("w0 ", "w1 "), COMPLETED)[1:],
        stream(*deltas("w0 ", "w1 ")),
        stream(*deltas("w0 ", "w1 "), ("response.failed", {})),
        stream(*deltas("w0 ", "w0 ", "w1 "), COMPLETED),
        stream(*deltas("w1 "), COMPLETED),
        [],
    ],
    ids=["gap", "cut short", "failed", "repeat", "loss", "empty"],
)
def test_a_broken_turn_fails_the_check(events):
    with pytest.raises(CheckFailed):
        check_stream(events, 2)
