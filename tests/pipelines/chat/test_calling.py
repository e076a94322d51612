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
from pipelines.chat.transcript import DELTA, RESTARTED
from pipelines.inference.engine import PLAIN, Call, EngineError, Form, Tool, ToolCall
from pipelines.inference.scripted.engine import ScriptedEngine

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "Of a city", "parameters": CITY, "strict": True}
NOW = {"type": "function", "name": "now", "description": None, "parameters": None, "strict": False}
ROME, PARIS = Call("weather", '{"city": "Rome"}', 1), Call("weather", '{"city": "Paris"}', 1)

CALL_EVENTS = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


def told(room, started):
    """What the stream tells, by type and payload."""
    assert room.writer.drain()
    history = journal.read_events(room.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in history]


def run(room, engine, started):
    attempt = room.attempt(started)
    room.settle(attempt, turn.run(engine, attempt))


def cut(room, engine, started, error=EngineError):
    """An attempt that ends with an error."""
    attempt = room.attempt(started)
    with pytest.raises(error):
        turn.run(engine, attempt)
    room.give_back(attempt)


def places(events):
    return [(type_, payload["output_index"]) for type_, payload in events if "output_index" in payload]


def scripted(**script):
    return ScriptedEngine(Settings(engine="scripted", script=Script(**script)))


def test_text_and_calls_are_items_in_order_and_openais_types_know_each_event(room, fake):
    started = room.start(tools=[WEATHER])

    run(room, fake("Let ", "me see.", ROME, PARIS), started)

    events, stored = told(room, started), room.stored(started)
    assert [(item["type"], item["status"]) for item in stored.output] == [
        ("message", "completed"), ("function_call", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, place in places(events) if place == 1] == CALL_EVENTS
    assert [place for _, place in places(events)] == sorted(place for _, place in places(events))
    assert [payload["arguments"] for type_, payload in events if type_ == CALL_EVENTS[2]] == [
        ROME.arguments, PARIS.arguments,
    ]  # fmt: skip
    assert room.billed(started) == [(1, 0, 4)]
    for type_, payload in events:
        if type_.startswith("response."):
            TypeAdapter(ResponseStreamEvent).validate_python(payload, strict=False)
    shown = OpenAIResponse.model_validate(events[-1][1]["response"])
    assert [item.type for item in shown.output] == ["message", "function_call", "function_call"]


def test_an_answer_of_calls_alone_has_no_message(room, fake):
    started = room.start(tools=[WEATHER])

    run(room, fake(ROME), started)

    assert [item["type"] for item in room.stored(started).output] == ["function_call"]
    assert places(told(room, started)) == [(type_, 0) for type_ in CALL_EVENTS]


def test_an_answer_of_nothing_is_an_empty_message_also_where_calls_were_possible(room, fake):
    started = room.start(tools=[WEATHER])

    run(room, fake(), started)

    assert [item["type"] for item in room.stored(started).output] == ["message"]
    assert [type_ for type_, _ in places(told(room, started))][:2] == [
        "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip


def test_the_request_reaches_the_engine(room, fake):
    engine = fake("a")
    schema = {"type": "json_schema", "name": "x", "schema": CITY}

    run(room, engine, room.start())
    run(room, engine, room.start(tools=[WEATHER, NOW], tool_choice={"type": "function", "name": "now"}, seed=7))
    run(room, engine, room.start(parallel_tool_calls=False, text={"format": schema}, stop=["x"]))
    run(room, engine, room.start(text={"format": {"type": "json_object"}}))

    tools = (Tool("weather", "Of a city", CITY), Tool("now", "", {}))
    assert engine.forms == [
        PLAIN, Form(tools, ("function", "now")), Form(parallel=False, schema=CITY), Form(schema={}),
    ]  # fmt: skip
    assert [sampling.seed for sampling in engine.samplings] == [None, 7, None, None]
    assert engine.samplings[2].stop == ("x",)


def test_properties_come_in_the_order_of_the_schema(room, fake):
    engine, names = fake("a"), ["long name", "b", "a"]
    schema = {"type": "object", "properties": {name: {} for name in names}}

    run(room, engine, room.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}))

    assert list(engine.forms[0].schema["properties"]) == names


def test_a_call_that_was_told_is_kept_and_what_follows_it_goes_on(room, fake):
    # Given an attempt that died behind its first call
    first, rest, started = fake("So: ", ROME), fake(PARIS), room.start(tools=[WEATHER], max_output_tokens=9)
    first.error = EngineError("gone")
    cut(room, first, started)

    # When another one goes on
    run(room, rest, started)

    # Then it is told what was said and called, and nothing is told twice
    assert (rest.prefixes, rest.samplings[0].max_output_tokens) == (["So: "], 7)
    output = room.stored(started).output
    made = [ToolCall(output[1]["call_id"], "weather", ROME.arguments)]
    assert rest.calls == [made]
    assert [item.get("arguments") for item in output] == [None, ROME.arguments, PARIS.arguments]
    ids = [payload["item"]["id"] for type_, payload in told(room, started) if type_ == CALL_EVENTS[0]]
    assert ids == [item["id"] for item in output]
    assert len(set(ids)) == 3
    assert room.billed(started) == [(1, 0, 3)]


def test_no_crash_parts_the_events_of_a_call(room, fake):
    """They are one append: the archive and Redis have all of them or none, and none is a call made anew."""
    started, appended = room.start(tools=[WEATHER]), []
    attempt = room.attempt(started)
    write_together = attempt.journal.write_atomically

    def watched(events, tokens):
        write_together(events, tokens)
        appended.append([type_ for type_, _ in events])

    attempt.journal.write_atomically = watched
    room.settle(attempt, turn.run(fake("a", ROME), attempt))

    assert [types for types in appended if CALL_EVENTS[1] in types] == [
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", *CALL_EVENTS]
    ]


def test_calls_that_were_told_stand_where_the_engine_can_not_go_on(room, fake):
    first, again, started = fake("a ", ROME, continues=False), fake("b", continues=False), room.start(tools=[WEATHER])
    first.error = EngineError("gone")
    cut(room, first, started)

    run(room, again, started)

    assert again.prompts == []
    assert [item["type"] for item in room.stored(started).output] == ["message", "function_call"]
    assert RESTARTED not in [type_ for type_, _ in told(room, started)]


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_calls_that_were_told_are_kept_when_the_turn_ends_early(room, fake, state):
    engine, started = fake("a", ROME), room.start(tools=[WEATHER])
    engine.error = EngineError("gone")
    attempt = room.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    room.settle(attempt, turn.end(attempt, state, {"code": "server_error", "message": "gone"}))

    assert [(item["type"], item["status"]) for item in room.stored(started).output] == [
        ("message", "completed"), ("function_call", "completed"),
    ]  # fmt: skip
    assert [type_ for type_, _ in told(room, started)].count("response.output_text.done") == 1
    assert room.billed(started) == [(1, 0, 2)]


@pytest.mark.parametrize("place", [1, 4, 6])
def test_json_is_continued_to_the_letter(room, place):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": CITY}, "required": ["a", "b"]}
    started = room.start(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})

    cut(room, scripted(fail_at=place), started)
    run(room, scripted(fail_at=place), started)

    said = "".join(payload["delta"] for type_, payload in told(room, started) if type_ == DELTA)
    validate(orjson.loads(said), schema)
    assert said == room.stored(started).output[0]["content"][0]["text"]


@pytest.mark.parametrize("place", range(5))
def test_a_scripted_turn_comes_to_the_same_wherever_it_is_cut(room, place):
    script = {"calls": 2, "preface": 2, "fail_at": place or None}
    started = room.start("call weather", tools=[WEATHER])

    if place in range(1, 4):
        cut(room, scripted(**script), started)
    run(room, scripted(**script), started)

    output = room.stored(started).output
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert output[0]["content"][0]["text"] == "w0 w1 "
    assert room.billed(started)[0][2] == 4
    assert [payload["sequence_number"] for _, payload in told(room, started)] == list(range(len(told(room, started))))


def test_a_limit_inside_a_call_leaves_it_out_and_says_so(room):
    started = room.start("call weather", tools=[WEATHER], max_output_tokens=2)

    run(room, scripted(calls=2, preface=1), started)

    stored = room.stored(started)
    assert (stored.status, stored.incomplete_details) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in stored.output] == ["message", "function_call"]


def test_a_conversation_that_is_too_long_fails_where_nothing_may_be_forgotten(room, fake):
    started = room.start("x " * 30, "y", truncation="disabled")
    attempt = room.attempt(started)

    with pytest.raises(PermanentFailure, match="the conversation takes") as failure:
        turn.run(fake("a", context=20), attempt)
    room.settle(attempt, turn.end(attempt, "failed", {"code": failure.value.code, "message": "too long"}))

    last = told(room, started)[-1][1]["response"]
    assert last["error"] == {"code": "invalid_prompt", "message": "too long", "reason": "context_length_exceeded"}
    OpenAIResponse.model_validate(last)
