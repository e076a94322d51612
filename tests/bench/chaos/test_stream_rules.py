"""Given the transcript of a turn, when anything in it violates a guarantee, then that rule is reported."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.chaos.stream_rules import check, unequal_fields
from bench.chaos.transcripts import ClientTranscript, RecordedReply, Replay, StreamConnection
from bench.harness.sse import DELTA, REWOUND, ReceivedEvent, scripted_text, text_of
from models.journal.events import event

LENGTH = 4
RESPONSE = {"id": "resp_1", "output": [{"content": [{"text": scripted_text(LENGTH)}]}], "status": "completed"}
REWIND = (REWOUND, {"job_id": "job_1"})

Corrupt = Callable[[ClientTranscript], None]


def received(*payloads: tuple[str, dict], first: int = 0) -> list[ReceivedEvent]:
    """Return events with numbers from `first` on, received on the first connection."""
    events = [event(first + index, type_, payload) for index, (type_, payload) in enumerate(payloads)]
    return [ReceivedEvent(float(each.sequence), each.sequence, each.type.decode(), each.data) for each in events]


def deltas(first: int, last: int) -> list[tuple[str, dict]]:
    return [(DELTA, {"delta": f"w{number} "}) for number in range(first, last)]


OPENING = [("response.created", {}), ("response.queued", {}), ("response.in_progress", {})]
COMPLETED = ("response.completed", {"response": RESPONSE})
STREAM = [*OPENING, *deltas(0, LENGTH), COMPLETED]


def turn(*stream: tuple[str, dict]) -> ClientTranscript:
    """Return a turn that was followed to its end, read and replayed."""
    transcript = ClientTranscript("turn", "streamer", "acct_1", "1-streamer-0", {}, 0.0, length=LENGTH, id="resp_1")
    transcript.replies = [RecordedReply(0.1, 0, "ConnectionResetError"), RecordedReply(0.2, 200, "", "resp_1")]
    transcript.connections = [StreamConnection(0.1, 0, -1, "create")]
    transcript.events = received(*(stream or STREAM))
    transcript.statuses = ["queued", "in_progress", "completed"]
    transcript.replays = [Replay(-1, transcript.effective_events()), Replay(3, transcript.effective_events()[4:])]
    transcript.final, transcript.ended = RESPONSE, 9.0
    return transcript


def rules(transcript: ClientTranscript, *, journal_lost: bool = False) -> set[str]:
    return {violation.rule for violation in check(transcript, journal_lost=journal_lost)}


def test_a_complete_turn_has_no_violation():
    assert list(check(turn(), journal_lost=False)) == []


def lose_an_event(transcript: ClientTranscript) -> None:
    del transcript.events[4]


def repeat_an_event(transcript: ClientTranscript) -> None:
    transcript.events.insert(5, transcript.events[4])


def lose_the_first_event(transcript: ClientTranscript) -> None:
    del transcript.events[0]


def end_twice(transcript: ClientTranscript) -> None:
    transcript.events += received(COMPLETED, first=len(STREAM))


def start_twice(transcript: ClientTranscript) -> None:
    transcript.events = received(*OPENING, OPENING[2], *STREAM[3:])


def repeat_a_token(transcript: ClientTranscript) -> None:
    transcript.events = received(*OPENING, *deltas(0, 2), *deltas(1, LENGTH), COMPLETED)


def shorten_the_text(transcript: ClientTranscript) -> None:
    transcript.events = received(*OPENING, *deltas(0, LENGTH - 1), COMPLETED)


def cancel_within_a_token(transcript: ClientTranscript) -> None:
    response = {"output": [{"content": [{"text": "w0 w"}]}]}
    transcript.events = received((DELTA, {"delta": "w0 w"}), ("sangha:job.cancelled", {"response": response}))
    transcript.final = response


def store_another_text(transcript: ClientTranscript) -> None:
    response = {**RESPONSE, "output": [{"content": [{"text": "w0 "}]}]}
    transcript.events = received(*STREAM[:-1], ("response.completed", {"response": response}))


def read_another_response(transcript: ClientTranscript) -> None:
    transcript.final = {**RESPONSE, "status": "incomplete"}


def replay_another_text(transcript: ClientTranscript) -> None:
    event = transcript.events[3]
    changed = replace(event, data=event.data.replace(b"w0", b"w9"))
    transcript.replays = [Replay(-1, [*transcript.events[:3], changed, *transcript.events[4:]])]


def replay_from_another_number(transcript: ClientTranscript) -> None:
    transcript.replays = [Replay(2, transcript.events[4:])]


def never_end(transcript: ClientTranscript) -> None:
    transcript.ended = None


def let_the_status_go_back(transcript: ClientTranscript) -> None:
    transcript.statuses = ["in_progress", "queued", "completed"]


def create_two_objects(transcript: ClientTranscript) -> None:
    transcript.replies.append(RecordedReply(0.3, 200, "", "resp_2"))


def reply_unexpectedly(transcript: ClientTranscript) -> None:
    transcript.unexpected.append("POST /v1/responses was answered with 500: {}")


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        (lose_an_event, "numbers"),
        (repeat_an_event, "numbers"),
        (lose_the_first_event, "numbers"),
        (end_twice, "ends"),
        (start_twice, "emitted once"),
        (repeat_a_token, "text"),
        (shorten_the_text, "text"),
        (cancel_within_a_token, "text"),
        (store_another_text, "response"),
        (read_another_response, "response"),
        (replay_another_text, "replay"),
        (replay_from_another_number, "replay"),
        (never_end, "ends"),
        (let_the_status_go_back, "ends"),
        (create_two_objects, "once a key"),
        (reply_unexpectedly, "answers"),
    ],
)
def test_a_corrupted_transcript_is_reported(corrupt: Corrupt, rule: str):
    transcript = turn()

    corrupt(transcript)

    assert rule in rules(transcript)


def marked(*marks: str) -> ClientTranscript:
    """Return a turn whose words have these marks."""
    text = [f"w{number}.{mark} " if mark else f"w{number} " for number, mark in enumerate(marks)]
    response = {**RESPONSE, "output": [{"content": [{"text": "".join(text)}]}]}
    transcript = turn(
        *OPENING, *[(DELTA, {"delta": word}) for word in text], ("response.completed", {"response": response})
    )
    transcript.final = response
    return transcript


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["aaaa", "aaaa", "aaaa", "aaaa"], set()),
        (["aaaa", "aaaa", "bbbb", "bbbb"], set()),
        (["aaaa", "bbbb", "aaaa", "aaaa"], {"mixed"}),
        (["", "aaaa", "", ""], set()),
    ],
    ids=["one attempt", "one after the other", "two at the same time", "a version without marks"],
)
def test_a_text_that_two_attempts_wrote_at_the_same_time_is_reported(marks: list[str], expected: set[str]):
    assert rules(marked(*marks)) == expected


def of_openais_client() -> ClientTranscript:
    """Return a turn whose client does not receive the event with the number 3."""
    transcript = turn(*OPENING, ("sangha:engine.started", {}), *STREAM[3:])
    transcript.exact = False
    transcript.events = [event for event in transcript.events if event.sequence != 3]
    transcript.replays = [Replay(-1, transcript.events), Replay(3, transcript.events[3:])]
    return transcript


def test_openais_client_may_miss_numbers_of_other_types():
    assert rules(of_openais_client()) == set()


def test_numbers_that_do_not_rise_at_openais_client_are_reported():
    transcript = of_openais_client()
    transcript.events[4] = replace(transcript.events[4], sequence=transcript.events[3].sequence)

    assert "numbers" in rules(transcript)


def test_a_rewind_may_replace_events_only_after_a_loss():
    # Given a client that received two tokens which then were lost, and generated again after a rewind
    lost = [*received(*OPENING, *deltas(0, 2)), *received(REWIND, *deltas(0, LENGTH), COMPLETED, first=3)]
    transcript = turn()
    transcript.events = lost
    transcript.replays = [Replay(4, transcript.effective_events()[3:])]

    # Then that is correct after the journal was lost, and else a violation
    assert rules(transcript, journal_lost=True) == set()
    assert rules(transcript) == {"numbers"}


def test_a_rewind_may_be_received_twice_when_it_replaces_nothing():
    rewound = received(*OPENING, *deltas(0, 2), REWIND, *deltas(2, LENGTH), COMPLETED)
    transcript = turn()
    transcript.events = [*rewound[:7], *rewound[5:]]  # it reconnected after the rewind, and received it again
    transcript.replays = []

    assert rules(transcript) == set()
    assert text_of(transcript.effective_events()) == scripted_text(LENGTH)


@pytest.mark.parametrize(("status", "excused", "reported"), [(404, True, False), (404, False, True), (500, True, True)])
def test_work_that_does_not_exist_after_a_failover_needs_no_end(status: int, excused: bool, reported: bool):
    transcript = ClientTranscript("memories", "importer", "acct_1", "1-importer-0", {}, 0.0)
    transcript.replies.append(RecordedReply(0.0, status))

    violations = list(check(transcript, journal_lost=False, excused=excused))

    assert ("ends" in {violation.rule for violation in violations}) == reported


def test_a_turn_that_a_failover_has_lost_after_its_stream_began_needs_no_end():
    """Its stream cannot be resumed: a client of HTTP or of OpenAI gets a 404."""
    transcript = ClientTranscript("turn", "streamer", "acct_1", "1-streamer-0", {}, 0.0)
    transcript.replies.append(RecordedReply(0.0, 200, "", "resp_1"))
    transcript.rejections.append(RecordedReply(1.0, 404))

    assert list(check(transcript, journal_lost=False, excused=True)) == []
    assert "ends" in {violation.rule for violation in check(transcript, journal_lost=False)}


def test_fields_of_one_of_two_versions_may_be_missing_in_the_other():
    left, right = {"id": "1", "top_p": None, "status": "completed"}, {"id": "1", "top_p": 1.0, "status": "failed"}

    assert unequal_fields(left, right, mixed=False) == ["status", "top_p"]
    assert unequal_fields(left, right, mixed=True) == ["status"]
