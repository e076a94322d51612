"""Given tools and forms, when a turn runs, is cut and runs again, then each call is told once, whole, in its place."""

import orjson
import pytest
from jsonschema import validate
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from models.journal import journal
from models.platform.errors import PermanentFailure
from models.platform.settings import Script, Settings
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


def told(harness, started):
    """What the stream tells, by type and payload."""
    assert harness.writer.drain()
    history = journal.read_events(harness.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in history]


def run(harness, engine, started):
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt))


def cut(harness, engine, started, error=EngineError):
    """An attempt that ends with an error."""
    attempt = harness.attempt(started)
    with pytest.raises(error):
        turn.run(engine, attempt)
    harness.give_back(attempt)


def places(events):
    return [(type_, payload["output_index"]) for type_, payload in events if "output_index" in payload]


def scripted(**script):
    return ScriptedEngine(Settings(engine="scripted", script=Script(**script)))


def test_text_and_calls_are_items_in_order_and_openais_types_know_each_event(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine("Let ", "me see.", ROME, PARIS), started)

    events, stored = told(harness, started), harness.stored(started)
    assert [(item["type"], item["status"]) for item in stored.output] == [
        ("message", "completed"), ("function_call", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, place in places(events) if place == 1] == CALL_EVENTS
    assert [place for _, place in places(events)] == sorted(place for _, place in places(events))
    assert [payload["arguments"] for type_, payload in events if type_ == CALL_EVENTS[2]] == [
        ROME.arguments, PARIS.arguments,
    ]  # fmt: skip
    assert harness.billed(started) == [(1, 0, 4)]
    for type_, payload in events:
        if type_.startswith("response."):
            TypeAdapter(ResponseStreamEvent).validate_python(payload, strict=False)
    shown = OpenAIResponse.model_validate(events[-1][1]["response"])
    assert [item.type for item in shown.output] == ["message", "function_call", "function_call"]


def test_an_answer_of_calls_alone_has_no_message(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine(ROME), started)

    assert [item["type"] for item in harness.stored(started).output] == ["function_call"]
    assert places(told(harness, started)) == [(type_, 0) for type_ in CALL_EVENTS]


def test_an_answer_of_nothing_is_an_empty_message_also_where_calls_were_possible(harness, fake_engine):
    started = harness.start(tools=[WEATHER])

    run(harness, fake_engine(), started)

    assert [item["type"] for item in harness.stored(started).output] == ["message"]
    assert [type_ for type_, _ in places(told(harness, started))][:2] == [
        "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip


def test_the_request_reaches_the_engine(harness, fake_engine):
    engine = fake_engine("a")
    schema = {"type": "json_schema", "name": "x", "schema": CITY}

    run(harness, engine, harness.start())
    run(harness, engine, harness.start(tools=[WEATHER, NOW], tool_choice={"type": "function", "name": "now"}, seed=7))
    run(harness, engine, harness.start(parallel_tool_calls=False, text={"format": schema}, stop=["x"]))
    run(harness, engine, harness.start(text={"format": {"type": "json_object"}}))

    tools = (Tool("weather", "Of a city", CITY), Tool("now", "", {}))
    assert engine.forms == [
        PLAIN_TEXT, OutputFormat(tools, ("function", "now")), OutputFormat(parallel=False, schema=CITY), OutputFormat(schema={}),
    ]  # fmt: skip
    assert [sampling.seed for sampling in engine.samplings] == [None, 7, None, None]
    assert engine.samplings[2].stop == ("x",)


def test_properties_come_in_the_order_of_the_schema(harness, fake_engine):
    engine, names = fake_engine("a"), ["long name", "b", "a"]
    schema = {"type": "object", "properties": {name: {} for name in names}}

    run(harness, engine, harness.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}))

    assert list(engine.forms[0].schema["properties"]) == names


def test_a_call_that_was_told_is_kept_and_what_follows_it_goes_on(harness, fake_engine):
    # Given an attempt that died behind its first call
    first, rest, started = (
        fake_engine("So: ", ROME),
        fake_engine(PARIS),
        harness.start(tools=[WEATHER], max_output_tokens=9),
    )
    first.error = EngineError("gone")
    cut(harness, first, started)

    # When another one goes on
    run(harness, rest, started)

    # Then it is told what was said and called, and nothing is told twice
    assert (rest.prefixes, rest.samplings[0].max_output_tokens) == (["So: "], 7)
    output = harness.stored(started).output
    made = [ToolCall(output[1]["call_id"], "weather", ROME.arguments)]
    assert rest.calls == [made]
    assert [item.get("arguments") for item in output] == [None, ROME.arguments, PARIS.arguments]
    ids = [payload["item"]["id"] for type_, payload in told(harness, started) if type_ == CALL_EVENTS[0]]
    assert ids == [item["id"] for item in output]
    assert len(set(ids)) == 3
    assert harness.billed(started) == [(1, 0, 3)]


def test_no_crash_parts_the_events_of_a_call(harness, fake_engine):
    """They are one append: the archive and Redis have all of them or none, and none is a call made anew."""
    started, appended = harness.start(tools=[WEATHER]), []
    attempt = harness.attempt(started)
    write_together = attempt.journal.write_atomically

    def watched(events, tokens):
        write_together(events, tokens)
        appended.append([type_ for type_, _ in events])

    attempt.journal.write_atomically = watched
    harness.settle(attempt, turn.run(fake_engine("a", ROME), attempt))

    assert [types for types in appended if CALL_EVENTS[1] in types] == [
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", *CALL_EVENTS]
    ]


def test_calls_that_were_told_stand_where_the_engine_can_not_go_on(harness, fake_engine):
    first, again, started = (
        fake_engine("a ", ROME, continues=False),
        fake_engine("b", continues=False),
        harness.start(tools=[WEATHER]),
    )
    first.error = EngineError("gone")
    cut(harness, first, started)

    run(harness, again, started)

    assert again.prompts == []
    assert [item["type"] for item in harness.stored(started).output] == ["message", "function_call"]
    assert ANSWER_RESTARTED not in [type_ for type_, _ in told(harness, started)]


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_calls_that_were_told_are_kept_when_the_turn_ends_early(harness, fake_engine, state):
    engine, started = fake_engine("a", ROME), harness.start(tools=[WEATHER])
    engine.error = EngineError("gone")
    attempt = harness.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    harness.settle(attempt, turn.end(attempt, state, {"code": "server_error", "message": "gone"}))

    assert [(item["type"], item["status"]) for item in harness.stored(started).output] == [
        ("message", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, _ in told(harness, started)].count("response.output_text.done") == 1
    assert harness.billed(started) == [(1, 0, 2)]


@pytest.mark.parametrize("place", [1, 4, 6])
def test_json_is_continued_to_the_letter(harness, place):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": CITY}, "required": ["a", "b"]}
    started = harness.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})

    cut(harness, scripted(fail_at=place), started)
    run(harness, scripted(fail_at=place), started)

    said = "".join(payload["delta"] for type_, payload in told(harness, started) if type_ == TEXT_DELTA)
    validate(orjson.loads(said), schema)
    assert said == harness.stored(started).output[0]["content"][0]["text"]


@pytest.mark.parametrize("place", range(5))
def test_a_scripted_turn_comes_to_the_same_wherever_it_is_cut(harness, place):
    script = {"calls": 2, "preface": 2, "fail_at": place or None}
    started = harness.start("call weather", tools=[WEATHER])

    if place in range(1, 4):
        cut(harness, scripted(**script), started)
    run(harness, scripted(**script), started)

    output = harness.stored(started).output
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert output[0]["content"][0]["text"] == "w0 w1 "
    assert harness.billed(started)[0][2] == 4
    assert [payload["sequence_number"] for _, payload in told(harness, started)] == list(
        range(len(told(harness, started)))
    )


def test_a_limit_inside_a_call_leaves_it_out_and_says_so(harness):
    started = harness.start("call weather", tools=[WEATHER], max_output_tokens=2)

    run(harness, scripted(calls=2, preface=1), started)

    stored = harness.stored(started)
    assert (stored.status, stored.incomplete_details) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in stored.output] == ["message", "function_call"]


def test_a_conversation_that_is_too_long_fails_where_nothing_may_be_forgotten(harness, fake_engine):
    started = harness.start("x " * 30, "y", truncation="disabled")
    attempt = harness.attempt(started)

    with pytest.raises(PermanentFailure, match="the conversation takes") as failure:
        turn.run(fake_engine("a", context=20), attempt)
    harness.settle(attempt, turn.end(attempt, "failed", {"code": failure.value.code, "message": "too long"}))

    last = told(harness, started)[-1][1]["response"]
    assert last["error"] == {"code": "invalid_prompt", "message": "too long", "reason": "context_length_exceeded"}
    OpenAIResponse.model_validate(last)
