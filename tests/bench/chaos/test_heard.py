"""Given what a client heard of a turn, when anything of it is not as promised, then that promise is named."""

from collections.abc import Callable

import orjson
import pytest

from bench.chaos.heard import judged
from bench.chaos.transcripts import Answer, Connection, Heard, Replay, Transcript, frames, text_of
from bench.client import script
from models.journal.events import event
from web.streams.sse import PING, frame

LENGTH = 4
RESPONSE = {"id": "resp_1", "output": [{"content": [{"text": script(LENGTH)}]}], "status": "completed"}
DELTA = "response.output_text.delta"
REWOUND = ("sangha:journal.rewound", {"job_id": "job_1"})

Corrupt = Callable[[Transcript], None]


def told(*payloads: tuple[str, dict], first: int = 0) -> list[Heard]:
    """Events with numbers from `first` on, heard on the first connection."""
    numbered = [event(first + place, type_, payload) for place, (type_, payload) in enumerate(payloads)]
    return [Heard(float(each.sequence), 0, each.sequence, each.type.decode(), each.data) for each in numbered]


def deltas(first: int, last: int) -> list[tuple[str, dict]]:
    return [(DELTA, {"delta": f"w{number} "}) for number in range(first, last)]


OPENING = [("response.created", {}), ("response.queued", {}), ("response.in_progress", {})]
COMPLETED = ("response.completed", {"response": RESPONSE})
STREAM = [*OPENING, *deltas(0, LENGTH), COMPLETED]


def turn(*stream: tuple[str, dict]) -> Transcript:
    """A turn that was heard to its end, read and replayed."""
    transcript = Transcript("turn", "streamer", "acct_1", "1-streamer-0", {}, 0.0, length=LENGTH, id="resp_1")
    transcript.answers = [Answer(0.1, 0, "ConnectionResetError"), Answer(0.2, 200, "", "resp_1")]
    transcript.connections = [Connection(0.1, 0, -1, "create")]
    transcript.events = told(*(stream or STREAM))
    transcript.statuses = ["queued", "in_progress", "completed"]
    transcript.replays = [Replay(-1, transcript.standing()), Replay(3, transcript.standing()[4:])]
    transcript.final, transcript.ended = RESPONSE, 9.0
    return transcript


def rules(transcript: Transcript, *, forgot: bool = False) -> set[str]:
    return {violation.rule for violation in judged(transcript, forgot=forgot)}


def test_a_whole_turn_breaks_no_promise():
    assert list(judged(turn(), forgot=False)) == []


def lose_one(transcript: Transcript) -> None:
    del transcript.events[4]


def hear_one_twice(transcript: Transcript) -> None:
    transcript.events.insert(5, transcript.events[4])


def begin_late(transcript: Transcript) -> None:
    del transcript.events[0]


def end_twice(transcript: Transcript) -> None:
    transcript.events += told(COMPLETED, first=len(STREAM))


def begin_twice(transcript: Transcript) -> None:
    transcript.events = told(*OPENING, OPENING[2], *STREAM[3:])


def double_a_token(transcript: Transcript) -> None:
    transcript.events = told(*OPENING, *deltas(0, 2), *deltas(1, LENGTH), COMPLETED)


def cut_the_text(transcript: Transcript) -> None:
    transcript.events = told(*OPENING, *deltas(0, LENGTH - 1), COMPLETED)


def cancel_in_a_token(transcript: Transcript) -> None:
    shown = {"output": [{"content": [{"text": "w0 w"}]}]}
    transcript.events = told((DELTA, {"delta": "w0 w"}), ("sangha:job.cancelled", {"response": shown}))
    transcript.final = shown


def store_another_text(transcript: Transcript) -> None:
    response = {**RESPONSE, "output": [{"content": [{"text": "w0 "}]}]}
    transcript.events = told(*STREAM[:-1], ("response.completed", {"response": response}))


def show_another_response(transcript: Transcript) -> None:
    transcript.final = {**RESPONSE, "status": "incomplete"}


def replay_otherwise(transcript: Transcript) -> None:
    other = transcript.events[3]
    changed = Heard(other.at, 0, other.sequence, other.type, other.data.replace(b"w0", b"w9"))
    transcript.replays = [Replay(-1, [*transcript.events[:3], changed, *transcript.events[4:]])]


def replay_from_elsewhere(transcript: Transcript) -> None:
    transcript.replays = [Replay(2, transcript.events[4:])]


def stay_open(transcript: Transcript) -> None:
    transcript.ended = None


def go_back(transcript: Transcript) -> None:
    transcript.statuses = ["in_progress", "queued", "completed"]


def make_two(transcript: Transcript) -> None:
    transcript.answers.append(Answer(0.3, 200, "", "resp_2"))


def answer_strangely(transcript: Transcript) -> None:
    transcript.strange.append("POST /v1/responses was answered with 500: {}")


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        (lose_one, "numbers"),
        (hear_one_twice, "numbers"),
        (begin_late, "numbers"),
        (end_twice, "ends"),
        (begin_twice, "told once"),
        (double_a_token, "text"),
        (cut_the_text, "text"),
        (cancel_in_a_token, "text"),
        (store_another_text, "shown"),
        (show_another_response, "shown"),
        (replay_otherwise, "replay"),
        (replay_from_elsewhere, "replay"),
        (stay_open, "ends"),
        (go_back, "ends"),
        (make_two, "once a key"),
        (answer_strangely, "answers"),
    ],
)
def test_what_is_corrupt_is_named(corrupt: Corrupt, rule: str):
    transcript = turn()

    corrupt(transcript)

    assert rule in rules(transcript)


def test_a_rewind_takes_back_only_where_something_was_lost():
    # Given a client that heard two tokens which then were lost, and made again behind a rewind
    lost = [*told(*OPENING, *deltas(0, 2)), *told(REWOUND, *deltas(0, LENGTH), COMPLETED, first=3)]
    transcript = turn()
    transcript.events = lost
    transcript.replays = [Replay(4, transcript.standing()[3:])]

    # Then that is as promised after the journal's store forgot, and else it is not
    assert rules(transcript, forgot=True) == set()
    assert rules(transcript) == {"numbers"}


def test_a_rewind_that_takes_nothing_back_may_be_heard_again():
    rewound = told(*OPENING, *deltas(0, 2), REWOUND, *deltas(2, LENGTH), COMPLETED)
    transcript = turn()
    transcript.events = [*rewound[:7], *rewound[5:]]  # it came back behind the rewind, and was taken to it
    transcript.replays = []

    assert rules(transcript) == set()
    assert text_of(transcript.standing()) == script(LENGTH)


def test_a_comment_before_an_event_is_passed_over():
    sent = PING + frame(0, orjson.dumps({"type": "response.created"})) + frame(1, orjson.dumps({"type": "x"})) + PING

    heard = list(frames(iter([sent[:9], sent[9:30], sent[30:]])))

    assert [(sequence, type_) for sequence, type_, _ in heard] == [(0, "response.created"), (1, "x")]
