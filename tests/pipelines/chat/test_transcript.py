"""The answer so far and its tokens are read from a journal."""

from models.journal.events import event
from pipelines.chat.transcript import (
    ANSWER_RESTARTED,
    ENGINE_STARTED,
    ITEM_ADDED,
    ITEM_DONE,
    TEXT_DELTA,
    read_transcript,
)


def journal(*entries):
    return [event(number, type_, payload) for number, (type_, payload) in enumerate(entries)]


def test_an_empty_journal_is_an_empty_transcript():
    transcript = read_transcript([], 0)

    assert (transcript.event_types, transcript.text, transcript.tokens, transcript.prompt_tokens) == (set(), "", 0, 0)


def test_deltas_are_joined_exactly():
    transcript = read_transcript(
        journal(
            (ENGINE_STARTED, {"prompt_tokens": 7}),
            (TEXT_DELTA, {"delta": 'a "\n'}),
            (TEXT_DELTA, {"delta": "\U0001f3d4 b"}),
        ),
        3,
    )

    assert (transcript.text, transcript.tokens, transcript.prompt_tokens) == ('a "\n\U0001f3d4 b', 3, 7)
    assert transcript.event_types == {ENGINE_STARTED, TEXT_DELTA}


def test_a_restart_discards_text_and_tokens():
    transcript = read_transcript(
        journal(
            (TEXT_DELTA, {"delta": "old"}), (ANSWER_RESTARTED, {"discarded_tokens": 4}), (TEXT_DELTA, {"delta": "new"})
        ),
        6,
    )

    assert (transcript.text, transcript.tokens) == ("new", 2)


def test_the_state_of_the_message_and_complete_calls_are_read():
    message, call = {"type": "message"}, {"type": "function_call", "call_id": "call_1"}
    started_items = journal((ITEM_ADDED, {"item": message}), (ITEM_ADDED, {"item": call}))

    assert read_transcript([], 0).message == "none"
    assert (read_transcript(started_items, 0).message, read_transcript(started_items, 0).calls) == ("in_progress", [])
    completed = read_transcript(
        [*started_items, *journal((ITEM_DONE, {"item": message}), (ITEM_DONE, {"item": call}))], 0
    )
    assert (completed.message, completed.calls) == ("completed", [call])
