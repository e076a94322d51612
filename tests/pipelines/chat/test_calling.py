"""A turn's tool calls are journalled once and whole, also when it is interrupted and continued."""

import orjson
import pytest
from jsonschema import validate
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from models.journal import journal
from models.platform.errors import PermanentFailure
from models.platform.script import Script
from models.platform.settings import Settings
from pipelines.chat import turn
from pipelines.chat.transcript import ANSWER_RESTARTED, TEXT_DELTA
from pipelines.inference.engine import PLAIN_TEXT, EngineError, GeneratedCall, OutputFormat, Tool, ToolCall
from pipelines.inference.scripted.engine import ScriptedEngine

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "Of a city", "parameters": CITY, "strict": True}
NOW = {"type": "function", "name": "now", "description": None, "parameters": None, "strict": False}
ROME, PARIS = GeneratedCall("weather", '{"city": "Rome"}', 1), GeneratedCall("weather", '{"city": "Paris"}', 1)

CALL_EVENTS = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


def read_events(harness, started):
    """Return the stream's events as type and payload."""
    assert harness.writer.drain()
    history = journal.read_events(harness.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in history]


def run(harness, engine, started):
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))


def fail(harness, engine, started, error=EngineError):
    """Run an attempt that ends with an error."""
    attempt = harness.attempt(started)
    with pytest.raises(error):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)


def output_positions(events):
    return [(type_, payload["output_index"]) for type_, payload in events if "output_index" in payload]


def scripted(**script):
    return ScriptedEngine(Settings(engine="scripted", script=Script(**script)))


def test_text_and_calls_are_items_in_order_and_valid_for_openais_types(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine("Let ", "me see.", ROME, PARIS), started)

    events, response = read_events(harness, started), harness.stored_response(started)
    assert [(item["type"], item["status"]) for item in response.output] == [
        ("message", "completed"), ("function_call", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, position in output_positions(events) if position == 1] == CALL_EVENTS
    assert [position for _, position in output_positions(events)] == sorted(
        position for _, position in output_positions(events)
    )
    assert [payload["arguments"] for type_, payload in events if type_ == CALL_EVENTS[2]] == [
        ROME.arguments, PARIS.arguments,
    ]  # fmt: skip
    assert harness.billed(started) == [(1, 0, 4)]
    for type_, payload in events:
        if type_.startswith("response."):
            TypeAdapter(ResponseStreamEvent).validate_python(payload, strict=False)
    openai_response = OpenAIResponse.model_validate(events[-1][1]["response"])
    assert [item.type for item in openai_response.output] == ["message", "function_call", "function_call"]


def test_an_answer_of_calls_only_has_no_message(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine(ROME), started)

    assert [item["type"] for item in harness.stored_response(started).output] == ["function_call"]
    assert output_positions(read_events(harness, started)) == [(type_, 0) for type_ in CALL_EVENTS]


def test_an_empty_answer_is_an_empty_message_where_calls_are_possible(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine(), started)

    assert [item["type"] for item in harness.stored_response(started).output] == ["message"]
    assert [type_ for type_, _ in output_positions(read_events(harness, started))][:2] == [
        "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip


def test_the_engine_gets_output_format_and_sampling(harness, fake_engine):
    engine = fake_engine("a")
    schema = {"type": "json_schema", "name": "x", "schema": CITY}

    run(harness, engine, harness.start())
    run(harness, engine, harness.start(tools=[WEATHER, NOW], tool_choice={"type": "function", "name": "now"}, seed=7))
    run(harness, engine, harness.start(parallel_tool_calls=False, text={"format": schema}, stop=["x"]))
    run(harness, engine, harness.start(text={"format": {"type": "json_object"}}))

    tools = (Tool("weather", "Of a city", CITY), Tool("now", "", {}))
    assert engine.output_formats == [
        PLAIN_TEXT, OutputFormat(tools, ("function", "now")),
        OutputFormat(parallel=False, schema=CITY), OutputFormat(schema={}),
    ]  # fmt: skip
    assert [sampling.seed for sampling in engine.samplings] == [None, 7, None, None]
    assert engine.samplings[2].stop == ("x",)


def test_schema_properties_keep_their_order(harness, fake_engine):
    engine, names = fake_engine("a"), ["long name", "b", "a"]
    schema = {"type": "object", "properties": {name: {} for name in names}}

    run(harness, engine, harness.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}))

    assert list(engine.output_formats[0].schema["properties"]) == names


def test_a_journalled_call_is_kept_and_the_answer_continues(harness, fake_engine):
    # Given an attempt that crashed after its first call
    first, second, started = (
        fake_engine("So: ", ROME),
        fake_engine(PARIS),
        harness.start(tools=[WEATHER], max_output_tokens=9),
    )
    first.error = EngineError("gone")
    fail(harness, first, started)

    # When another one continues
    run(harness, second, started)

    # Then it gets the earlier text and call, and no event is repeated
    assert (second.prefixes, second.samplings[0].max_output_tokens) == (["So: "], 7)
    output = harness.stored_response(started).output
    earlier_calls = [ToolCall(output[1]["call_id"], "weather", ROME.arguments)]
    assert second.calls == [earlier_calls]
    assert [item.get("arguments") for item in output] == [None, ROME.arguments, PARIS.arguments]
    ids = [payload["item"]["id"] for type_, payload in read_events(harness, started) if type_ == CALL_EVENTS[0]]
    assert ids == [item["id"] for item in output]
    assert len(set(ids)) == 3
    assert harness.billed(started) == [(1, 0, 3)]


def test_the_events_of_a_call_are_journalled_together(harness, fake_engine):
    """They are one append: the archive and Redis have all or none of them, and then the call is made again."""
    started, appended = harness.start(tools=[WEATHER]), []
    attempt = harness.attempt(started)
    write_together = attempt.journal.write_atomically

    def record(events, tokens):
        write_together(events, tokens)
        appended.append([type_ for type_, _ in events])

    attempt.journal.write_atomically = record
    harness.settle(attempt, turn.run(fake_engine("a", ROME), attempt))

    assert [types for types in appended if CALL_EVENTS[1] in types] == [
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", *CALL_EVENTS]
    ]


def test_journalled_calls_end_the_answer_of_an_engine_that_cannot_continue(harness, fake_engine):
    first, second, started = (
        fake_engine("a ", ROME, continues=False),
        fake_engine("b", continues=False),
        harness.start(tools=[WEATHER]),
    )
    first.error = EngineError("gone")
    fail(harness, first, started)

    run(harness, second, started)

    assert second.prompts == []
    assert [item["type"] for item in harness.stored_response(started).output] == ["message", "function_call"]
    assert ANSWER_RESTARTED not in [type_ for type_, _ in read_events(harness, started)]


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_journalled_calls_are_kept_when_the_turn_ends_early(harness, fake_engine, state):
    engine, started = fake_engine("a", ROME), harness.start(tools=[WEATHER])
    engine.error = EngineError("gone")
    attempt = harness.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    harness.settle(attempt, turn.end(attempt, state, {"code": "server_error", "message": "gone"}))

    assert [(item["type"], item["status"]) for item in harness.stored_response(started).output] == [
        ("message", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, _ in read_events(harness, started)].count("response.output_text.done") == 1
    assert harness.billed(started) == [(1, 0, 2)]


@pytest.mark.parametrize("position", [1, 4, 6])
def test_json_is_continued_exactly(harness, position):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": CITY}, "required": ["a", "b"]}
    started = harness.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})

    fail(harness, scripted(fail_at=position), started)
    run(harness, scripted(fail_at=position), started)

    text = "".join(payload["delta"] for type_, payload in read_events(harness, started) if type_ == TEXT_DELTA)
    validate(orjson.loads(text), schema)
    assert text == harness.stored_response(started).output[0]["content"][0]["text"]


@pytest.mark.parametrize("position", range(5))
def test_a_turn_has_the_same_result_wherever_it_is_interrupted(harness, position):
    script = {"calls": 2, "preface": 2, "fail_at": position or None}
    started = harness.start("call weather", tools=[WEATHER])

    if position in range(1, 4):
        fail(harness, scripted(**script), started)
    run(harness, scripted(**script), started)

    output = harness.stored_response(started).output
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert output[0]["content"][0]["text"] == "w0 w1 "
    assert harness.billed(started)[0][2] == 4
    assert [payload["sequence_number"] for _, payload in read_events(harness, started)] == list(
        range(len(read_events(harness, started)))
    )


def test_a_call_cut_by_the_token_limit_is_dropped_and_the_turn_incomplete(harness):
    started = harness.start("call weather", tools=[WEATHER], max_output_tokens=2)

    run(harness, scripted(calls=2, preface=1), started)

    response = harness.stored_response(started)
    assert (response.status, response.incomplete_details) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in response.output] == ["message", "function_call"]


def test_a_long_conversation_fails_with_truncation_disabled(harness, fake_engine):
    started = harness.start("x " * 30, "y", truncation="disabled")
    attempt = harness.attempt(started)

    with pytest.raises(PermanentFailure, match="The conversation takes") as failure:
        turn.run(fake_engine("a", context=20), attempt)
    harness.settle(attempt, turn.end(attempt, "failed", {"code": failure.value.code, "message": "too long"}))

    last = read_events(harness, started)[-1][1]["response"]
    assert last["error"] == {"code": "invalid_prompt", "message": "too long", "reason": "context_length_exceeded"}
    OpenAIResponse.model_validate(last)


def test_a_call_of_an_unknown_function_is_returned_to_the_caller(harness, fake_engine):
    # Given an endpoint whose model calls a function that nobody offered
    started = harness.start("weather?", tools=[WEATHER])
    run(harness, fake_engine(GeneratedCall("invented", "{}", 1)), started)
    # Then the caller gets the call
    [item] = harness.stored_response(started).output
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "invented", "{}")
