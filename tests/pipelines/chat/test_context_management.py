"""A turn whose prompt is above the request's threshold begins its output with a compaction, and is answered from it."""

import orjson
import pytest

from models.journal import journal
from pipelines.chat import turn
from pipelines.chat.compaction import HEADER, read_compaction
from pipelines.chat.context_management import compaction_of
from pipelines.chat.response_objects import response_object
from tests.pipelines.chat.test_turn import crash_before, run

LONG = "My flight to Lisbon leaves at gate B12. " + "It was nice to talk. " * 30
THRESHOLD = {"compact_threshold": 140}


def message(role, text):
    return {"type": "message", "role": role, "content": [{"text": text}]}


def call(call_id):
    return {"type": "function_call", "id": "", "call_id": call_id, "name": "look_up", "arguments": "{}"}


def result(call_id, text):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def kept_of(started, engine, *items):
    item = compaction_of(engine, started.response, items)
    return None if item is None else read_compaction(item["encrypted_content"]).kept


@pytest.fixture
def asked(harness):
    """A turn that asks for compaction above 140 tokens."""
    return harness.start("hello", context_management=THRESHOLD)


def test_a_short_conversation_is_not_compacted(asked, fake_engine):
    assert kept_of(asked, fake_engine(), message("user", "one"), message("assistant", "two")) is None


def test_a_turn_without_the_option_is_not_compacted(harness, fake_engine):
    assert kept_of(harness.start("hello"), fake_engine(), message("user", LONG), message("user", "new")) is None


def test_a_long_question_alone_cannot_be_compacted(asked, fake_engine):
    assert kept_of(asked, fake_engine(), message("system", "Be brief."), message("user", LONG)) is None


def test_instructions_alone_cannot_be_compacted(harness, fake_engine):
    asked = harness.start("hello", instructions=LONG, context_management=THRESHOLD)

    assert kept_of(asked, fake_engine(), message("system", "Be brief.")) is None


def test_instructions_and_the_last_question_with_its_calls_are_kept(asked, fake_engine):
    rules, question = message("system", "Be brief."), message("user", "Which gate?")
    items = [rules, message("user", LONG), message("assistant", "Noted."), question, call("1"), result("1", "B12")]

    assert kept_of(asked, fake_engine(), *items) == [rules, question, call("1"), result("1", "B12")]


def test_of_many_calls_the_last_are_kept_with_the_question(asked, fake_engine):
    question = message("user", "Look up all gates.")
    rounds = [item for number in "123" for item in (call(number), result(number, "a long result " * 25))]

    assert kept_of(asked, fake_engine(), question, *rounds) == [question, *rounds[-2:]]


def test_the_answer_follows_the_compaction_in_stream_and_response(harness, fake_engine):
    # Given a long turn, and one that continues it with a threshold
    first = harness.start(LONG)
    run(harness, fake_engine("Noted."), first)
    engine = fake_engine("Gate ", "B12.")
    started = harness.start("Which gate?", previous=first.response.id, context_management=THRESHOLD)

    # When it is answered
    run(harness, engine, started)

    # Then the compaction is the first item, and the engine got quotes before the question
    stored = harness.stored_response(started)
    assert [item["type"] for item in stored.output] == ["compaction", "message"]
    assert [each.role for each in engine.prompts[0]] == ["system", "user"]
    assert engine.prompts[0][0].content.startswith(HEADER)
    assert "gate B12" in engine.prompts[0][0].content
    assert harness.writer.drain()
    events = [
        (event.type.decode(), orjson.loads(event.data))
        for event in journal.read_events(harness.client, started.response.job_id)
    ]
    items = [payload["output_index"] for type_, payload in events if type_ == "response.output_item.done"]
    assert items == [0, 1]
    assert {payload["output_index"] for type_, payload in events if type_ == "response.output_text.delta"} == {1}
    assert events[-1][1]["response"] == response_object(stored)


def test_a_later_turn_reads_nothing_before_the_compaction(harness, fake_engine):
    first = harness.start(LONG)
    run(harness, fake_engine("Noted."), first)
    second = harness.start("Which gate?", previous=first.response.id, context_management=THRESHOLD)
    run(harness, fake_engine("Gate B12."), second)
    engine = fake_engine("Yes.")

    run(harness, engine, harness.start("Is it far?", previous=second.response.id))

    texts = [(each.role, each.content) for each in engine.prompts[0] if each.role != "system"]
    assert texts == [("user", "Which gate?"), ("assistant", "Gate B12."), ("user", "Is it far?")]


def test_the_next_attempt_uses_the_journalled_compaction(harness, fake_engine):
    first = harness.start(LONG)
    run(harness, fake_engine("Noted."), first)
    engine = fake_engine("Gate ", "B12.")
    started = harness.start("Which gate?", previous=first.response.id, context_management=THRESHOLD)
    crash_before(harness, engine, started, 1)

    run(harness, engine, started)

    stored = harness.stored_response(started)
    assert engine.prompts[0] == engine.prompts[1]
    assert engine.prefixes == ["", "Gate "]
    assert [item["type"] for item in stored.output] == ["compaction", "message"]


def test_a_cancelled_turn_keeps_its_compaction(harness, fake_engine):
    first = harness.start(LONG)
    run(harness, fake_engine("Noted."), first)
    started = harness.start("Which gate?", previous=first.response.id, context_management=THRESHOLD)
    crash_before(harness, fake_engine("Gate ", "B12."), started, 1)
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.end(attempt, "cancelled", None))

    assert [item["type"] for item in harness.stored_response(started).output] == ["compaction", "message"]
