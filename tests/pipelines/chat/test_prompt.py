"""A prompt contains the whole conversation in order, as far as it fits."""

import pytest

from models.platform.errors import PermanentFailure
from models.platform.ids import new_id
from models.turns import conversations
from pipelines.chat import turn
from pipelines.chat.prompt import assemble_messages, fit_prompt
from pipelines.inference.engine import GeneratedCall, Message, ToolCall
from tests.pipelines.chat.conftest import FakeEngine


def run_turn(harness, engine, started):
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))
    return started


def prompt_of(harness, started):
    with harness.database.connection() as connection:
        return [
            (message.role, message.content) for message in assemble_messages(FakeEngine(), connection, started.response)
        ]


def test_instructions_are_first_and_the_turns_input_is_last(harness):
    assert prompt_of(harness, harness.start("one", "two", instructions="Be kind.")) == [
        ("system", "Be kind."), ("user", "one"), ("user", "two"),
    ]  # fmt: skip


def test_a_chain_is_included_without_its_earlier_instructions(harness, fake_engine):
    first = run_turn(harness, fake_engine("a "), harness.start("one", instructions="Be rude."))
    second = run_turn(harness, fake_engine("b "), harness.start("two", previous=first.response.id))

    assert prompt_of(harness, harness.start("three", previous=second.response.id)) == [
        ("user", "one"), ("assistant", "a "), ("user", "two"), ("assistant", "b "), ("user", "three"),
    ]  # fmt: skip


def test_a_conversation_is_included_with_its_initial_items(harness, fake_engine):
    conversation = new_id("conv")
    item = {"id": new_id("msg"), "type": "message", "role": "developer", "content": [{"text": "Be kind."}]}
    with harness.database.transaction() as connection:
        conversations.create(connection, conversation, harness.caller.account_id, harness.caller.user_id, {})
        conversations.add_items(connection, conversation, [item])
    run_turn(harness, fake_engine("a "), harness.start("one", conversation=conversation))

    assert prompt_of(harness, harness.start("two", conversation=conversation)) == [
        ("system", "Be kind."), ("user", "one"), ("assistant", "a "), ("user", "two"),
    ]  # fmt: skip


def test_the_oldest_messages_that_do_not_fit_are_dropped(fake_engine):
    engine = fake_engine(context=40)
    messages = [Message("system", "x " * 5), *[Message("user", f"{n} " * 10) for n in range(5)]]

    prompt = fit_prompt(engine, messages, {"max_output_tokens": None})

    assert [message.content[:2] for message in prompt.messages] == ["x ", "3 ", "4 "]
    assert (prompt.tokens, prompt.dropped, prompt.max_output_tokens) == (25, 3, 40 - 25)


@pytest.mark.parametrize(("limit", "expected"), [(None, 90), (5, 5), (500, 90)])
def test_the_answer_is_limited_by_the_request_and_the_context(fake_engine, limit, expected):
    assert (
        fit_prompt(
            fake_engine(context=100), [Message("user", "x " * 10)], {"max_output_tokens": limit}
        ).max_output_tokens
        == expected
    )


def test_a_message_longer_than_the_context_is_a_permanent_failure(fake_engine):
    with pytest.raises(PermanentFailure) as caught:
        fit_prompt(fake_engine(context=20), [Message("user", "x " * 30)], {"max_output_tokens": None})

    assert caught.value.code == "context_length_exceeded"


def item(type_, **fields):
    return {"id": new_id("x"), "type": type_, **fields}


def test_calls_and_results_become_messages(harness, fake_engine):
    text_message = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    calls = [item("function_call", call_id=f"c{n}", name="f", arguments=f"[{n}]") for n in range(2)]
    results = [item("function_call_output", call_id=f"c{n}", output=f"r{n}") for n in (0, 1, 9)]
    started = harness.start("one", items=[item("message", **text_message), *calls, *results, *calls[:1]])

    with harness.database.connection() as connection:
        messages = assemble_messages(FakeEngine(), connection, started.response)

    first, second = ToolCall("c0", "f", "[0]"), ToolCall("c1", "f", "[1]")
    assert messages == [
        Message("user", "one"),
        Message("assistant", "Let me see.", (first, second)),
        Message("tool", "r0", call_id="c0"),
        Message("tool", "r1", call_id="c1"),
        Message("assistant", "", (first,)),
    ]


def test_calls_of_earlier_turns_are_included(harness, fake_engine):
    tools = [{"type": "function", "name": "f", "description": None, "parameters": None}]
    first = run_turn(harness, fake_engine(GeneratedCall("f", "{}", 1)), harness.start("one", tools=tools))
    (call,) = harness.stored_response(first).output

    result = item("function_call_output", call_id=call["call_id"], output="r")
    second = harness.start(previous=first.response.id, items=[result])

    assert prompt_of(harness, second) == [("user", "one"), ("assistant", ""), ("tool", "r")]
