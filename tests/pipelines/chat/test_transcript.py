"""The answer so far and its tokens are read from a journal."""

from models.journal.events import event
from pipelines.chat.transcript import (
    ANSWER_RESTARTED,
    ENGINE_STARTED,
    ITEM_ADDED,
    ITEM_DONE,
    TEXT_DELTA,
    Step,
    read_transcript,
)


def journal(*entries):
    return [event(number, type_, payload) for number, (type_, payload) in enumerate(entries)]


def test_an_empty_journal_is_an_empty_transcript():
    transcript = read_transcript([], 0)

    assert (transcript.event_types, transcript.items, transcript.step) == (set(), [], Step())


def test_deltas_are_joined_exactly():
    transcript = read_transcript(
        journal(
            (ENGINE_STARTED, {"prompt_tokens": 7}),
            (TEXT_DELTA, {"delta": 'a "\n'}),
            (TEXT_DELTA, {"delta": "\U0001f3d4 b"}),
        ),
        3,
    )

    step = transcript.step
    assert (step.text, step.tokens, step.prompt_tokens) == ('a "\n\U0001f3d4 b', 3, 7)
    assert transcript.event_types == {ENGINE_STARTED, TEXT_DELTA}


def test_a_restart_discards_text_and_tokens():
    transcript = read_transcript(
        journal(
            (TEXT_DELTA, {"delta": "old"}), (ANSWER_RESTARTED, {"discarded_tokens": 4}), (TEXT_DELTA, {"delta": "new"})
        ),
        6,
    )

    assert (transcript.step.text, transcript.step.tokens) == ("new", 2)


def test_the_state_of_the_message_and_complete_calls_are_read():
    message, call = {"id": "msg_1", "type": "message"}, {"id": "fc_1", "type": "function_call", "call_id": "call_1"}
    added = [(ITEM_ADDED, {"output_index": number, "item": item}) for number, item in enumerate((message, call))]
    done = [(ITEM_DONE, payload) for _, payload in added]

    empty, begun, completed = (read_transcript(journal(*events), 0).step for events in ([], added, [*added, *done]))

    assert empty.message == "none"
    assert (begun.message, begun.calls) == ("in_progress", [])
    assert (completed.message, completed.calls) == ("completed", [call])
