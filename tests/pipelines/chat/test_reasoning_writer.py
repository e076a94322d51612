"""Reasoning is an item of its own before the answer, and survives its worker like the answer."""

import pytest

from pipelines.chat.transcript import ANSWER_RESTARTED, REASONING_DELTA, SUMMARY_DELTA, TEXT_DELTA
from pipelines.inference.engine import GeneratedCall, ReasoningToken, Token
from tests.pipelines.chat.test_turn import crash_before, events, run

THOUGHT = (ReasoningToken("I ", 1), ReasoningToken("think", 2))
TOOL = {"type": "function", "name": "look", "description": None, "parameters": None, "strict": None}


@pytest.fixture
def reasoner(fake_engine):
    """`reasoner(*outputs)` → an engine whose answers may begin with reasoning."""
    return lambda *outputs, **options: fake_engine(*outputs, reasons=True, **options)


def types(turn_events):
    return [
        type_ for type_, _ in turn_events if type_.startswith("response.") and not type_.endswith(("created", "queued"))
    ]


def added_items(turn_events):
    return [payload["item"]["type"] for type_, payload in turn_events if type_ == "response.output_item.added"]


def deltas(turn_events, *delta_types):
    return "".join(payload["delta"] for type_, payload in turn_events if type_ in delta_types)


def test_reasoning_is_an_item_before_the_message(harness, reasoner):
    # Given a model that reasons
    engine, started = reasoner(*THOUGHT, "It ", "is."), harness.start("one two")
    # When it answers
    run(harness, engine, started)
    # Then its reasoning has events as OpenAI defines them, and ends before the message begins
    turn_events = events(harness, started)
    assert types(turn_events) == [
        "response.in_progress",
        "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta",
        "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    # And the response has both items, at the positions of their events
    reasoning, message = harness.stored_response(started).output
    assert (reasoning["type"], reasoning["status"], reasoning["summary"]) == ("reasoning", "completed", [])
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "I think"}]
    assert message["content"][0]["text"] == "It is."
    positions = {
        payload["item_id"]: payload["output_index"] for type_, payload in turn_events if "content_part" in type_
    }
    assert positions == {reasoning["id"]: 0, message["id"]: 1}
    # And its tokens are billed, and counted apart
    usage = harness.stored_response(started).usage
    assert (usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"]) == (5, 3)
    assert harness.billed(started)[0][2] == 5


def test_the_reasoning_is_the_summary_where_the_request_asks_for_one(harness, reasoner):
    started = harness.start("hello", reasoning={"effort": None, "summary": "auto"})
    run(harness, reasoner(*THOUGHT, "Yes."), started)
    turn_events = events(harness, started)
    assert deltas(turn_events, SUMMARY_DELTA) == "I think"
    summary_events = [type_ for type_ in types(turn_events) if "summary" in type_]
    assert summary_events == [
        "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done", "response.reasoning_summary_part.done",
    ]  # fmt: skip
    reasoning = harness.stored_response(started).output[0]
    assert (reasoning["summary"], reasoning["content"]) == ([{"type": "summary_text", "text": "I think"}], [])


@pytest.mark.parametrize(("crash", "reasoning", "prefix"), [(1, "I ", ""), (2, "I think", ""), (3, "I think", "It ")])
def test_an_answer_is_continued_where_it_was_cut(harness, reasoner, crash, reasoning, prefix):
    # Given a worker that crashes within the reasoning, between it and the text, or within the text
    outputs, started = [*THOUGHT, "It ", "is."], harness.start("hello")
    crash_before(harness, reasoner(*outputs), started, crash)
    # When another one continues
    engine = reasoner(*outputs[crash:])
    run(harness, engine, started)
    # Then it gets what is journalled, and the items are those of an answer without a crash
    assert (engine.reasonings, engine.prefixes) == ([reasoning], [prefix])
    turn_events = events(harness, started)
    assert (deltas(turn_events, REASONING_DELTA), deltas(turn_events, TEXT_DELTA)) == ("I think", "It is.")
    assert [payload["sequence_number"] for _, payload in turn_events] == list(range(len(turn_events)))
    assert added_items(turn_events) == ["reasoning", "message"]
    # And each token is billed once
    stored = harness.stored_response(started)
    assert stored.usage["output_tokens_details"]["reasoning_tokens"] == 3
    assert harness.billed(started)[0][2] == 5


@pytest.mark.parametrize("crash", [1, 3])
def test_an_engine_that_cannot_continue_begins_the_reasoning_again(harness, reasoner, crash):
    # Given a worker that crashes after reasoning
    started = harness.start("hello")
    crash_before(harness, reasoner(*THOUGHT, "It ", "is.", continues=False), started, crash)
    # When another one begins again
    run(harness, reasoner(ReasoningToken("Well", 1), "No.", continues=False), started)
    # Then the stream says so, and has its items only after that
    turn_events = events(harness, started)
    restart = next(number for number, (type_, _) in enumerate(turn_events) if type_ == ANSWER_RESTARTED)
    assert deltas(turn_events[restart:], REASONING_DELTA, TEXT_DELTA) == "WellNo."
    assert added_items(turn_events[restart:]) == ["reasoning", "message"]
    # And only the second answer is kept and billed
    stored = harness.stored_response(started)
    assert [item["type"] for item in stored.output] == ["reasoning", "message"]
    assert (stored.usage["output_tokens"], stored.usage["output_tokens_details"]["reasoning_tokens"]) == (2, 1)


def test_an_answer_that_is_cut_off_within_its_reasoning_has_no_message(harness, reasoner):
    engine, started = reasoner(*THOUGHT), harness.start("hello", max_output_tokens=50)
    engine.reason = "length"
    run(harness, engine, started)
    stored = harness.stored_response(started)
    assert (stored.status, [item["type"] for item in stored.output]) == ("incomplete", ["reasoning"])
    assert stored.output[0]["status"] == "incomplete"


def test_a_model_that_only_reasons_answers_with_an_empty_message(harness, reasoner):
    started = harness.start("hello")
    run(harness, reasoner(*THOUGHT), started)
    reasoning, message = harness.stored_response(started).output
    assert (reasoning["status"], message["content"][0]["text"]) == ("completed", "")


def test_a_call_follows_its_reasoning(harness, reasoner):
    started = harness.start("hello", tools=[TOOL])
    run(harness, reasoner(*THOUGHT, GeneratedCall("look", "{}", 2)), started)
    turn_events = events(harness, started)
    assert [item["type"] for item in harness.stored_response(started).output] == ["reasoning", "function_call"]
    done = [payload["output_index"] for type_, payload in turn_events if type_ == "response.output_item.done"]
    assert done == [0, 1]


def test_reasoning_without_a_text_is_counted(harness, fake_engine):
    engine, started = fake_engine("Yes.", Token("", 40), reasons=True), harness.start("hello")
    engine.hidden_reasoning = 40
    run(harness, engine, started)
    usage = harness.stored_response(started).usage
    assert (usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"]) == (41, 40)


def test_reasoning_is_in_the_prompt_for_the_rest_of_its_turn_only(harness, reasoner):
    # Given a call with reasoning, and its result
    started = harness.start("hello", tools=[TOOL])
    run(harness, reasoner(*THOUGHT, GeneratedCall("look", "{}", 2)), started)
    call = harness.stored_response(started).output[1]
    output = {"id": "fco_1", "type": "function_call_output", "call_id": call["call_id"], "output": "4"}
    # When the turn goes on
    engine = reasoner("Four.")
    following = harness.start(items=[output], previous=started.response.id, tools=[TOOL])
    run(harness, engine, following)
    # Then the prompt has it
    assert [message.reasoning for message in engine.prompts[0]] == ["", "I think", ""]
    # When the user asks again, it has not
    engine = reasoner("Yes.")
    run(harness, engine, harness.start("again", previous=following.response.id, tools=[TOOL]))
    assert not any(message.reasoning for message in engine.prompts[0])
